"""A clone on a machine that has never seen the project: `make setup`, and what it made works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from launcher.settings import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that git would hand out, in a folder with a space in its name."""
    folder = tmp_path_factory.mktemp("clean") / "a clone"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)
    return folder


def sh(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    # A make that was started by a make says so, in more lines than a newcomer sees.
    around = ("PYTEST", "MAKE", "MFLAGS")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(around)}
    return subprocess.run(
        ["sh", "-c", command], cwd=folder, env=environ, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip


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
