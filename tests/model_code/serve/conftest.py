"""One toy server for all tests that leave it as they found it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.model_code.serve.running import FIXED, Server
from tests.model_code.serve.toy_bundle import write_toy


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A toy server with small limits, explanations on, time-outs short."""
    folder = tmp_path_factory.mktemp("serve")
    limits = ("--max-body-mb", "4", "--max-photos", "50", "--read-timeout", "1.5", "--idle-timeout", "20")
    with Server(write_toy(folder / "toy"), folder, *FIXED, *limits, "--explain") as running:
        yield running
    assert "Traceback" not in running.errors.read_text()
