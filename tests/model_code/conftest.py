"""What several test files share because it takes seconds to make."""

from __future__ import annotations

import pytest

from tests.model_code import colours


@pytest.fixture(scope="session")
def colour_bundle(tmp_path_factory: pytest.TempPathFactory) -> colours.Colours:
    """A bundle exported from a real classifier; do not change it, `copy` it."""
    return colours.export(tmp_path_factory.mktemp("colours"))
