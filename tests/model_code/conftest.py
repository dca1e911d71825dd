"""Fixtures that several test files share because they take seconds to make."""

from __future__ import annotations

from unittest import mock

import pytest

from model_code.export.int8 import guard
from tests.model_code import colours


@pytest.fixture(scope="session")
def colour_bundle(tmp_path_factory: pytest.TempPathFactory) -> colours.Colours:
    """A bundle exported from a real classifier; do not change it, `copy` it."""
    # A network this small gains little from int8 on some processors; the bundle shall have it on all.
    with mock.patch.object(guard, "speed_up", return_value=2.0):
        return colours.export(tmp_path_factory.mktemp("colours"))
