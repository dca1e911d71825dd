"""A clone on a machine that has never seen the project: `make setup`, and what it made works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.launcher.clone import make_clone, sh

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clone(tmp_path_factory.mktemp("clean") / "a clone")


def test_make_setup_in_a_clean_clone(clone: Path) -> None:
    done = sh("make setup", clone)
    if re.search(r"No matching distribution|Could not find a version|[Cc]onnection", done.stdout):
        pytest.skip(f"no package index can be reached: {done.stdout.splitlines()[-1]}")
    assert done.returncode == 0, done.stdout
    again = sh("make setup", clone)
    assert (again.returncode, again.stdout) == (0, "")
    checked = sh(".venv/bin/python -m pip check", clone)
    assert checked.returncode == 0, checked.stdout
    status = sh("make status", clone)
    assert "nothing is up: make run starts it" in status.stdout
    imported = sh(".venv/bin/python -c 'import local_aws, ml_pipeline; print(ml_pipeline.__file__)'", clone)
    assert str(clone / "plugins") in imported.stdout, imported.stdout
