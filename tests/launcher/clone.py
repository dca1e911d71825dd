"""A clone of the repository, and commands in it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from launcher.settings import REPOSITORY


def make_clone(folder: Path) -> Path:
    """Copy the files that git would hand out, changes included, into a new folder."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)
    return folder


def sh(command: str, folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the clone as a newcomer would: nothing of the enclosing pytest or make reaches it."""
    # A make that was started by a make says so, in more lines than a newcomer sees.
    around = ("PYTEST", "MAKE", "MFLAGS", "AIRFLOW", "AWS_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(around)}
    return subprocess.run(
        ["sh", "-c", command], cwd=folder, env={**environ, **settings}, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
