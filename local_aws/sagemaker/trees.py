"""Folders that a job can write, read without following any link that it leaves there."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from local_aws.sagemaker.s3_data import DataError
from local_aws.state.beneath import NotRegular, open_beneath

DEEPEST = 64
"""Levels of folders that are read; a deeper tree is refused."""


@dataclass(frozen=True)
class Tree:
    """The folder `root/parts...`.

    Attributes:
        root: A folder whose own path the job cannot change: the one mounted at /opt/ml.
        parts: The names below it.
    """

    root: Path
    parts: tuple[str, ...]

    @classmethod
    def at(cls, root: Path, path: str) -> Tree:
        """Return the tree of a path such as "output/data" below `root`."""
        return cls(root, tuple(part for part in path.split("/") if part))

    def files(self) -> Iterator[str]:
        """Yield the paths of the regular files, relative to the tree, in order.

        Raises:
            DataError: The tree is too deep.
        """
        for name, mode in self.entries():
            if stat.S_ISREG(mode):
                yield name

    def open(self, name: str) -> BinaryIO:
        """Open a regular file of the tree.

        Raises:
            FileNotFoundError: It is gone.
            NotRegular: It is not a regular file now.
        """
        return open_beneath(self.root, *self.parts, *name.split("/"))

    def read(self, name: str, most: int) -> bytes:
        """Read the first `most` bytes of a file; b"" when it is absent or not regular."""
        try:
            with self.open(name) as file:
                return file.read(most)
        except (FileNotFoundError, NotRegular):
            return b""

    def is_empty(self) -> bool:
        """Return True when the tree holds no regular file."""
        return next(self.files(), None) is None

    def link(self, name: str) -> str | None:
        """Return the target of a link of the tree; None when it is no link now."""
        folder, _, last = name.rpartition("/")
        with Tree(self.root, (*self.parts, *filter(None, folder.split("/"))))._opened() as descriptor:
            if descriptor is None:
                return None
            try:
                return os.readlink(last, dir_fd=descriptor)
            except OSError:
                return None

    def entries(self) -> Iterator[tuple[str, int]]:
        """Yield (path relative to the tree, mode) of files, folders and links, in order.

        Raises:
            DataError: The tree is too deep.
        """
        with self._opened() as descriptor:
            if descriptor is not None:
                yield from _walk(descriptor, "", DEEPEST)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int | None]:
        """Open the tree's folder; None when it is absent or a part of its path is a link."""
        try:
            descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            yield None
            return
        try:
            for part in self.parts:
                inner = _folder(part, descriptor)
                if inner is None:
                    yield None
                    return
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)


def _walk(folder: int, prefix: str, depth: int) -> Iterator[tuple[str, int]]:
    if depth == 0:
        raise DataError(f"a folder is more than {DEEPEST} levels deep: {prefix[:200]}...")
    for name in sorted(os.listdir(folder)):
        try:
            mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        except FileNotFoundError:
            continue
        yield prefix + name, mode
        inner = _folder(name, folder) if stat.S_ISDIR(mode) else None
        if inner is not None:
            try:
                yield from _walk(inner, f"{prefix}{name}/", depth - 1)
            finally:
                os.close(inner)


def _folder(name: str, parent: int) -> int | None:
    """Open a folder; None when it is absent or not a folder now."""
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except OSError:
        return None


__all__ = ["NotRegular", "Tree"]
