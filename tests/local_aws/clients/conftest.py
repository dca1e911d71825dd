"""A local_aws that verifies signatures, as `make run` starts it: stock clients sign every request."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.local_aws.cloud import Signing


@pytest.fixture(scope="module")
def signing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signing]:
    """One for the tests of a module, with 4 cores."""
    running = Signing(tmp_path_factory.mktemp("signing"), ("--cores", "4", "--auth", "required"))
    running.start()
    yield running
    running.stop()
