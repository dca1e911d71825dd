"""Open files in folders that a job or instance can write: no link that it leaves there is followed."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path
from typing import BinaryIO


class NotRegular(OSError):
    """The path leads to a link, folder, pipe or device instead of a regular file."""


def open_beneath(root: Path, *parts: str) -> BinaryIO:
    """Open the regular file `root/parts...` for reading, following no link below `root`.

    Each folder is opened relative to its parent with O_NOFOLLOW, so that a folder that is replaced by a link
    meanwhile does not matter. O_NONBLOCK keeps a pipe from blocking the open.

    Args:
        root: a folder whose own path a job cannot change.
        parts: the names below it, one at least.

    Raises:
        NotRegular: a part is a link, or the last one is no regular file.
        FileNotFoundError: there is no such file.
    """
    if not parts or any(part in ("", ".", "..") or "/" in part for part in parts):
        raise NotRegular(f"{'/'.join(parts)!r} does not name a file below {root}")
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            inner = _open(part, os.O_DIRECTORY, folder, root)
            os.close(folder)
            folder = inner
        descriptor = _open(parts[-1], os.O_NONBLOCK, folder, root)
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegular(f"{'/'.join(parts)} below {root} is not a regular file")
    return os.fdopen(descriptor, "rb")


def _open(name: str, flags: int, folder: int, root: Path) -> int:
    try:
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise NotRegular(f"{name} below {root} is not opened: {error.strerror}") from error


def read_beneath(root: Path, *parts: str, most: int = -1) -> bytes:
    """Return the last `most` bytes (all by default) of a file; b"" when it is absent or no regular file."""
    try:
        with open_beneath(root, *parts) as file:
            if most >= 0:
                file.seek(max(0, os.fstat(file.fileno()).st_size - most))
            return file.read()
    except (FileNotFoundError, NotRegular):
        return b""


def own_folder(path: Path) -> Path:
    """Create a folder, in place of a link or file that an earlier job left under its name."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        path.unlink()
    path.mkdir(parents=True, exist_ok=True)
    return path


def remove_tree(folder: Path) -> None:
    """Delete a folder as far as possible, also what its owner locked: the next attempt must find no link in its place.

    Nothing may run in it any more. Links are removed, not followed.
    """
    for parent, names, _ in os.walk(folder):  # from the top: a folder is listed after it is unlocked
        for path in (os.path.join(parent, name) for name in names):
            if not os.path.islink(path):
                with contextlib.suppress(OSError):
                    os.chmod(path, 0o700)
    shutil.rmtree(folder, ignore_errors=True)
