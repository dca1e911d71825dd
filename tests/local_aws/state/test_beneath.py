"""Folders that a job or instance could write are removed whatever it did to them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from local_aws.state.beneath import remove_tree

UNPRIVILEGED = 65534


def as_a_user(check: object) -> int:
    """Run `check()` in a child that is not root, who may delete anything; return its exit status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if os.getuid() == 0:
                os.setuid(UNPRIVILEGED)
            check()  # type: ignore[operator]
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_locked_folders_are_removed_and_links_are_not_followed() -> None:
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        folder, outside = Path(name, "opt_ml"), Path(name, "outside")

        def check() -> None:
            (folder / "input/data").mkdir(parents=True)
            (outside / "kept").mkdir(parents=True)
            outside.chmod(0o500)
            (folder / "input/data/train").symlink_to(outside)
            (folder / "shut").mkdir()
            (folder / "shut/file").write_text("x")
            (folder / "input/data").chmod(0o500)
            (folder / "shut").chmod(0)
            remove_tree(folder)
            assert not folder.exists()
            assert outside.stat().st_mode & 0o777 == 0o500
            assert (outside / "kept").is_dir()
            outside.chmod(0o700)

        assert as_a_user(check) == 0
