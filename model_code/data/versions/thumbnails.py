"""Thumbnails of the photos of one shard: a ZIP that stores each as `<sha256>.jpg`, uncompressed.

One object per shard instead of one per photo, which S3 would charge by the request. The index is at the end of a ZIP:
a reader fetches that once, then each photo by its range. The same photos give the same bytes.

Standard library only: the console reads thumbnails too.
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

SUFFIX = ".jpg"
# The index of 1,100 photos; a shard of 64 MB has some 600.
TAIL_BYTES = 128 * 2**10
_FIRST_DAY = (1980, 1, 1, 0, 0, 0)
_END_BYTES, _HEADER_BYTES = 22, 30


class Place(NamedTuple):
    """Bytes `start` to `stop` of a ZIP: a member with its header."""

    start: int
    stop: int
    crc: int


def key(shard: str) -> str:
    """Return the key, relative to the data set, of the thumbnails of a shard."""
    return f"thumbnails/{shard}.zip"


@contextmanager
def writing(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a ZIP to be written by `add`; it is on disk afterwards."""
    with path.open("wb") as file:
        with zipfile.ZipFile(file, "w") as album:
            yield album
        file.flush()
        os.fsync(file.fileno())


def add(album: zipfile.ZipFile, sha256: str, thumbnail: bytes) -> None:
    """Add the thumbnail of a photo."""
    album.writestr(zipfile.ZipInfo(sha256 + SUFFIX, _FIRST_DAY), thumbnail)


def without(body: bytes, gone: Collection[str]) -> bytes | None:
    """Return a ZIP without the photos `gone`, by SHA-256: `body` itself where it has none of them.

    None where it is damaged and has one: the header next to a picture names it, whatever the index says.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as album:
            names = [name.removesuffix(SUFFIX) for name in album.namelist()]
            if not any(name in gone for name in names):
                return body
            left = io.BytesIO()
            with zipfile.ZipFile(left, "w") as kept:
                for name in names:
                    if name not in gone:
                        add(kept, name, album.read(name + SUFFIX))
            return left.getvalue()
    except (zipfile.BadZipFile, zlib.error, EOFError):
        return None if any((sha256 + SUFFIX).encode() in body for sha256 in gone) else body


def missing(tail: bytes) -> int:
    """Return how many bytes before `tail`, the end of a ZIP, its index takes; 0: the index is in it."""
    return int.from_bytes(tail[-10:-6], "little") + _END_BYTES - len(tail)


def places(tail: bytes, size: int) -> dict[str, Place]:
    """Read the index of a ZIP.

    Args:
        tail: Its end, with the whole index.
        size: All its bytes.

    Returns:
        The place of each photo, by SHA-256.

    Raises:
        ValueError: It is no ZIP of thumbnails.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(tail)) as album:
            members = album.infolist()
    except zipfile.BadZipFile as error:
        raise ValueError(str(error)) from error
    # zipfile counts from the begin of the file that the end it was given seems to belong to.
    before = size - len(tail)
    return {
        member.filename.removesuffix(SUFFIX): Place(
            start := before + member.header_offset,
            start + _HEADER_BYTES + len(member.filename) + member.file_size,
            member.CRC,
        )
        for member in members
    }


def thumbnail_of(sha256: str, member: bytes, place: Place) -> bytes:
    """Return the thumbnail in the bytes at its place.

    Raises:
        ValueError: These are other bytes.
    """
    name = (sha256 + SUFFIX).encode()
    head = _HEADER_BYTES + len(name)
    if member[_HEADER_BYTES:head] != name or zlib.crc32(member[head:]) != place.crc:
        raise ValueError(f"the thumbnail of {sha256} is damaged")
    return member[head:]
