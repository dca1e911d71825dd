"""Blobs: immutable files that hold the bytes of objects and parts, named by random ids, never by keys."""

from __future__ import annotations

import contextlib
import os
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

CHUNK = 1024 * 1024
_FICLONE = 0x40049409  # linux/fs.h: share the extents of a file (btrfs, xfs)


class Blob:
    """A blob being written; nothing refers to it before `finish`, and `discard` removes it."""

    def __init__(self, blob_id: str, path: str, descriptor: int, size: int = 0) -> None:
        self.id = blob_id
        """Its name, which the index refers to."""
        self.path = path
        self.size = size
        self._descriptor = descriptor

    def write(self, chunk: bytes) -> None:
        """Append bytes."""
        view = memoryview(chunk)
        while view:
            written = os.write(self._descriptor, view)
            self.size += written
            view = view[written:]

    def append_file(self, source: int, size: int) -> None:
        """Append `size` bytes of an open file, inside the kernel where it can."""
        offset = 0
        while offset < size:
            copied = _copy_range(source, self._descriptor, offset, self.size, min(size - offset, 64 * CHUNK))
            if copied == 0:
                raise OSError(f"blob file ends after {offset} of {size} bytes")
            offset += copied
            self.size += copied
        os.lseek(self._descriptor, self.size, os.SEEK_SET)

    def finish(self) -> None:
        """Put all bytes on the disk; the file's name too, which fsync of a new file includes on Linux."""
        os.fsync(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1

    def discard(self) -> None:
        """Remove the file, finished or not."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        _unlink(self.path)


class Blobs:
    """The folder of blobs: `<root>/<first two hex digits>/<id>`."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        for number in range(256):
            (root / f"{number:02x}").mkdir(parents=True, exist_ok=True)

    def path(self, blob_id: str) -> str:
        """Return the path of a blob's bytes, to be read only."""
        return f"{self._root}/{blob_id[:2]}/{blob_id}"

    @contextlib.contextmanager
    def writing(self) -> Iterator[Blob]:
        """Yield a new blob, which the block (or the function it hands it to) finishes; removed if it raises."""
        blob_id = uuid.uuid4().hex
        path = self.path(blob_id)
        blob = Blob(blob_id, path, os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o444))
        try:
            yield blob
        except BaseException:
            blob.discard()
            raise

    def concatenate(self, blob: Blob, parts: Iterable[tuple[str, int]]) -> None:
        """Append other blobs, given as (id, size), to `blob`."""
        for part_id, size in parts:
            descriptor = os.open(self.path(part_id), os.O_RDONLY)
            try:
                blob.append_file(descriptor, size)
            finally:
                os.close(descriptor)

    def link(self, blob_id: str, size: int) -> Blob:
        """Return the same bytes as a second, finished blob (a hard link: blobs never change).

        Raises:
            FileNotFoundError: the blob is gone.
        """
        link_id = uuid.uuid4().hex
        path = self.path(link_id)
        os.link(self.path(blob_id), path)
        _flush_folder(os.path.dirname(path))
        return Blob(link_id, path, -1, size)

    def remove(self, blob_ids: Iterable[str]) -> None:
        """Delete blobs. Readers that have them open go on reading."""
        for blob_id in blob_ids:
            _unlink(self.path(blob_id))

    def collect_garbage(self, is_live: Callable[[list[str]], set[str]]) -> int:
        """Delete blobs that a killed process left unfinished, before any write; return how many."""
        removed = 0
        for folder in os.listdir(self._root):
            names = os.listdir(f"{self._root}/{folder}")
            dead = set(names) - is_live(names)
            self.remove(dead)
            removed += len(dead)
        return removed


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _flush_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_out(source: str, destination: Path) -> None:
    """Copy a blob to a file of the caller's own: share extents where possible, else copy in the kernel.

    Never a hard link: a job that edits its input would edit the stored object.
    """
    with open(source, "rb") as reader, destination.open("wb") as writer:
        if _clone(writer.fileno(), reader.fileno()):
            return
        size, offset = os.fstat(reader.fileno()).st_size, 0
        while offset < size:
            copied = _copy_range(reader.fileno(), writer.fileno(), offset, offset, size - offset)
            if copied == 0:
                break
            offset += copied


def _clone(target: int, source: int) -> bool:
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def _copy_range(source: int, target: int, source_offset: int, target_offset: int, size: int) -> int:
    if hasattr(os, "copy_file_range"):
        try:
            return os.copy_file_range(source, target, size, source_offset, target_offset)
        except OSError:
            pass  # another file system, or a kernel that refuses it there: copy by hand
    chunk = os.pread(source, min(size, CHUNK), source_offset)
    return os.pwrite(target, chunk, target_offset)
