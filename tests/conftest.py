"""Fixtures and settings of every test."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from launcher.settings import keep_off_proxy

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

_SHARING = "tests/e2e/params"

keep_off_proxy(os.environ)  # servers under test are on this machine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take minutes: begun last, one of them would keep a single core busy at the end."""
    items.sort(key=lambda item: item.get_closest_marker("e2e") is None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    """Give each file to one worker, and a folder whose files share an Airflow as a whole."""
    from xdist.scheduler import LoadFileScheduling

    class ByFixtures(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _SHARING if nodeid.startswith(f"{_SHARING}/") else super()._split_scope(nodeid)

    return ByFixtures(config, log) if config.getoption("dist") == "loadfile" else None
