"""Fixtures and settings of every test."""

from __future__ import annotations

import os

import pytest

from launcher.settings import keep_off_proxy

keep_off_proxy(os.environ)  # servers under test are on this machine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take minutes: begun last, one of them would keep a single core busy at the end."""
    items.sort(key=lambda item: item.get_closest_marker("e2e") is None)
