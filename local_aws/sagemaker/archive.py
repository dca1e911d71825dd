"""model.tar.gz and sourcedir.tar.gz: packed from folders, unpacked into one.

Python's own `filter="data"` is missing before 3.11.4 and can be escaped before 3.11.13 (CVE-2025-4517). Here each
folder is opened relative to its parent, never through a link, and links are created after everything else.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import posixpath
import shutil
import stat
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from local_aws.sagemaker.s3_data import DataError
from local_aws.sagemaker.trees import NotRegular, Tree

COMPRESSION_LEVEL = 1
"""Weights barely compress: level 1 takes a tenth of the time of the default for about the same size."""
MOST_ENTRIES = 200_000
LARGEST_HEADER = 2**20
"""Bytes that tarfile reads at once, which bounds extended headers; content is read in smaller pieces."""
SPARE_BYTES = 2**20
"""Free disk space that unpacking leaves."""
CHUNK = 2**18


def pack(trees: Sequence[Tree], target: Path) -> None:
    """Write `target`, a .tar.gz of the trees' contents. The first tree wins on equal names.

    Links are packed as links; they are not followed.
    """
    seen: set[str] = set()
    with tarfile.open(target, "w:gz", compresslevel=COMPRESSION_LEVEL) as tar:
        for tree in trees:
            for name, mode in tree.entries():
                if name not in seen:
                    seen.add(name)
                    _add(tar, tree, name, mode)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar, plain or compressed with gzip, bzip2 or xz.

    Args:
        archive: The tar.
        folder: Created where needed. Nothing is written outside it; owners are not restored.

    Raises:
        DataError: The archive is damaged, does not fit on the disk, has too many entries, or holds a member that
            leaves the folder or is neither a file, a folder nor a link.
    """
    folder.mkdir(parents=True, exist_ok=True)
    room = shutil.disk_usage(folder).free - SPARE_BYTES
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with (
            archive.open("rb") as packed,
            _decompressed(packed) as stream,
            tarfile.open(fileobj=_Bounded(stream), mode="r:") as tar,
        ):
            _unpack_members(tar, top, room)
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError, ValueError) as error:
        raise DataError(f"{archive.name} cannot be unpacked: {error}") from error
    finally:
        os.close(top)


class _Bounded(io.RawIOBase):
    """A stream that refuses to read more than LARGEST_HEADER at once: no header can fill the memory."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= LARGEST_HEADER:
            raise tarfile.ReadError("a header is too large")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


def _decompressed(packed: IO[bytes]) -> Any:
    start = packed.read(6)
    packed.seek(0)
    if start.startswith(b"\x1f\x8b"):
        return gzip.open(packed)
    if start.startswith(b"BZh"):
        return bz2.open(packed)
    if start.startswith(b"\xfd7zXZ"):
        return lzma.open(packed)
    return contextlib.nullcontext(packed)


def _unpack_members(tar: tarfile.TarFile, top: int, room: int) -> None:
    links: list[tuple[list[str], str]] = []
    for count, member in enumerate(tar, start=1):
        if count > MOST_ENTRIES:
            raise DataError(f"the archive holds more than {MOST_ENTRIES} entries")
        parts = _parts(member.name)
        if member.isdir():
            os.close(_make_folders(top, parts))
        elif member.isreg() or member.islnk():
            source, size = _content(tar, member, top)
            with source:
                room -= size
                if room < 0:
                    raise DataError("the archive does not fit on the disk: free some space")
                _write(top, parts, source, member)
        elif member.issym():
            if not parts or not _stays(parts, member.linkname):
                raise DataError(f"the link {member.name!r} leads outside the folder")
            links.append((parts, member.linkname))
        else:
            raise DataError(f"{member.name!r} is neither a file, a folder nor a link")
    for parts, target in links:
        with _parent(top, parts) as parent:
            os.symlink(target, parts[-1], dir_fd=parent)


def _parts(name: str) -> list[str]:
    """Split a member's name. Raises DataError for one that leaves the folder."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise DataError(f"{name!r} leads outside the folder")
    return parts


def _stays(parts: Sequence[str], target: str) -> bool:
    """Return True when a link's target is below the folder."""
    reached = posixpath.normpath(posixpath.join("/".join(parts[:-1]), target))
    return not target.startswith("/") and reached != ".." and not reached.startswith("../")


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, top: int) -> tuple[IO[bytes], int]:
    """Return the content of a file or of the file that a hard link names, and its size in bytes."""
    if member.isreg():
        content = tar.extractfile(member)
        if content is None:
            raise DataError(f"{member.name!r} has no content")
        return content, member.size
    parts = _parts(member.linkname)
    with _parent(top, parts) as parent:
        descriptor = os.open(
            parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent
        )
    return os.fdopen(descriptor, "rb"), os.fstat(descriptor).st_size


def _write(top: int, parts: list[str], source: IO[bytes], member: tarfile.TarInfo) -> None:
    mode = 0o600 | member.mode & 0o755
    with _parent(top, parts) as parent:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(parts[-1], dir_fd=parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(parts[-1], flags, mode, dir_fd=parent)
    with os.fdopen(descriptor, "wb") as file:
        shutil.copyfileobj(source, file, CHUNK)
        os.fchmod(file.fileno(), mode)
        with contextlib.suppress(OSError, OverflowError):
            os.utime(file.fileno(), (member.mtime, member.mtime))


@contextlib.contextmanager
def _parent(top: int, parts: Sequence[str]) -> Iterator[int]:
    """Open the folder of a member, created where needed. Raises DataError for the folder itself."""
    if not parts:
        raise DataError("a member has no name")
    descriptor = _make_folders(top, parts[:-1])
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _make_folders(top: int, parts: Sequence[str]) -> int:
    """Open a folder below `top`, created where needed; no link is followed."""
    folder = os.dup(top)
    try:
        for part in parts:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=folder)
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            os.close(folder)
            folder = inner
    except BaseException:
        os.close(folder)
        raise
    return folder


def _add(tar: tarfile.TarFile, tree: Tree, name: str, mode: int) -> None:
    """Add one entry; one that vanished or changed meanwhile is left out."""
    if stat.S_ISDIR(mode):
        member = tarfile.TarInfo(name)
        member.type, member.mode = tarfile.DIRTYPE, stat.S_IMODE(mode)
        tar.addfile(member)
    elif stat.S_ISLNK(mode):
        target = tree.link(name)
        if target is not None:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.mode = tarfile.SYMTYPE, target, 0o777
            tar.addfile(member)
    elif stat.S_ISREG(mode):
        with contextlib.suppress(FileNotFoundError, NotRegular), tree.open(name) as file:
            tar.addfile(tar.gettarinfo(arcname=name, fileobj=file), file)
