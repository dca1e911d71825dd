"""Shards: plain tar files in WebDataset layout (`<key>.jpg`, `<key>.cls`), read and written as streams.

The split is part of the file (a pax header), so a shard explains itself wherever it is copied. The same
photos in the same split give the same bytes, hence the same name, on any machine.
"""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from model_code.process.files import sha256_of

KEY_DIGITS = 20
MAX_BYTES = 64 * 2**20
_SPLIT_HEADER = "ML_PIPELINE.split"
_BLOCK = 512
_END = bytes(_BLOCK)


class Split(StrEnum):
    """Part of a data set. A photo keeps its split in every later version."""

    TRAIN = "train"
    VALID = "valid"
    TEST = "test"


class ShardError(ValueError):
    """A shard that is damaged or not one of ours."""


@dataclass(frozen=True)
class Sample:
    """One photo of a shard: its key, its class by name, and its file as it was (`suffix` without a dot)."""

    key: str
    label: str
    data: bytes
    suffix: str


@dataclass(frozen=True)
class ShardInfo:
    """A written shard: the SHA-256 that names it, its split, photos and size in bytes."""

    sha256: str
    split: Split
    photos: int
    bytes: int


def key_of(sha256: str) -> str:
    """Return a photo's key: the first 20 hex digits of its SHA-256."""
    return sha256[:KEY_DIGITS]


def tar_bytes(photo_bytes: int, label: str) -> int:
    """Return bytes that one photo takes up in a shard: two headers and two padded bodies."""
    return 2 * _BLOCK + _padded(photo_bytes) + _padded(len(label.encode()))


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def write_shard(path: Path, split: Split, samples: Iterable[Sample]) -> ShardInfo:
    """Write `samples` to `path` in their order, holding one photo in memory at a time.

    The file appears under its name only when it is complete and on disk.
    """
    photos = 0
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".shard-", delete=False) as file:
        temporary = Path(file.name)
        try:
            # Names are short ASCII, so only the split itself costs a pax header.
            with tarfile.open(
                fileobj=file, mode="w", format=tarfile.PAX_FORMAT, pax_headers={_SPLIT_HEADER: split.value}
            ) as tar:
                for sample in samples:
                    _add(tar, f"{sample.key}.{sample.suffix}", sample.data)
                    _add(tar, f"{sample.key}.cls", sample.label.encode())
                    tar.members.clear()  # type: ignore[attr-defined]  # else every header stays in memory
                    photos += 1
            file.flush()
            os.fsync(file.fileno())
            info = ShardInfo(sha256_of(temporary), split, photos, temporary.stat().st_size)
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    return info


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # mtime, uid, gid 0 and mode 0644 by default
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


class Entry(NamedTuple):
    """A photo inside its shard: `size` bytes from `offset`."""

    key: str
    label: str
    suffix: str
    offset: int
    size: int


def read_split(path: Path) -> Split:
    """Read the split of a shard from its first header.

    Raises:
        ShardError: The file is not one of our shards.
    """
    with path.open("rb") as file:
        return _split(path, file.fileno())


def index_shard(path: Path) -> Iterator[Entry]:
    """Index a shard by its headers and labels; the photos are skipped over.

    Yields:
        The photos in their order.

    Raises:
        ShardError: The file is damaged, cut short or not one of our shards; perhaps only at its end.
    """
    with path.open("rb") as file:
        _split(path, file.fileno())
        yield from _entries(path, file.fileno())


def read_index(path: Path) -> tuple[Split, list[Entry]]:
    """Read the split and the whole index of a shard in one pass over its headers.

    Raises:
        ShardError: The file is damaged, cut short or not one of our shards.
    """
    with path.open("rb") as file:
        return _split(path, file.fileno()), list(_entries(path, file.fileno()))


def read_shard(path: Path) -> Iterator[Sample]:
    """Read the samples of a shard in their order, holding one photo in memory.

    Raises:
        ShardError: The file is damaged, cut short or not one of our shards.
    """
    with path.open("rb") as file:
        for entry in index_shard(path):
            data = os.pread(file.fileno(), entry.size, entry.offset)
            yield Sample(entry.key, entry.label, data, entry.suffix)


def count_photos(path: Path) -> int:
    """Count the photos of a shard by its headers.

    Raises:
        ShardError: The file is damaged or not one of our shards.
    """
    return sum(1 for _ in index_shard(path))


def shards_in(folder: Path, named: Set[str] = frozenset()) -> list[Path]:
    """Return the shards of a channel folder and its sub-folders, in the order of their names.

    Args:
        folder: The channel. In FastFile mode it has the shards of all splits and versions of the data set.
        named: SHA-256 digests of the shards to take, where the folder has any of them.
    """
    there = sorted(path for path in folder.rglob("*.tar") if not path.name.startswith("."))
    return [path for path in there if path.stem in named] or there


class _Member(NamedTuple):
    """A member of a tar file: `size` bytes from `offset`. `kind` is tarfile's type flag."""

    name: str
    kind: bytes
    offset: int
    size: int


def _split(path: Path, descriptor: int) -> Split:
    first = next(_members(path, descriptor, "is not a tar file"), None)
    try:
        if first is None or first.kind != tarfile.XGLTYPE:
            raise ValueError("no global header")
        # "<length> <keyword>=<value>\n" (POSIX.1-2024, pax, "Extended Header").
        record = os.pread(descriptor, first.size, first.offset).partition(b"\n")[0].decode()
        keyword, _, value = record.partition(" ")[2].partition("=")
        if keyword != _SPLIT_HEADER:
            raise ValueError(keyword)
        return Split(value)
    except ValueError as error:
        raise ShardError(
            f"{path} does not say which split it holds; write it with model_code.data.shards"
        ) from error


def _entries(path: Path, descriptor: int) -> Iterator[Entry]:
    photo: _Member | None = None
    for member in _members(path, descriptor):
        if member.kind == tarfile.XGLTYPE:
            continue
        if member.kind != tarfile.REGTYPE:
            raise ShardError(f"{path}: {member.name} is not a plain file")
        key, _, suffix = member.name.rpartition(".")
        if suffix != "cls":
            photo = member
            continue
        if photo is None or photo.name.rpartition(".")[0] != key:
            raise ShardError(f"{path}: {member.name} does not follow its photo")
        label = os.pread(descriptor, member.size, member.offset)
        try:
            yield Entry(key, label.decode(), photo.name.rpartition(".")[2], photo.offset, photo.size)
        except UnicodeDecodeError as error:
            raise ShardError(f"{path} is damaged: {member.name} is not UTF-8") from error
        photo = None
    if photo is not None:
        raise ShardError(f"{path} is cut short")


def _members(path: Path, descriptor: int, fault: str = "is damaged") -> Iterator[_Member]:
    """Yield the members of an open shard, by their ustar headers (POSIX.1-2024, pax, "ustar Interchange Format").

    tarfile reads any tar file, but takes a seventh of the time that a small network needs for a photo; this reads
    what `write_shard` writes.
    """
    position = 0
    while (header := os.pread(descriptor, _BLOCK, position)) != _END:
        if len(header) < _BLOCK:
            raise ShardError(f"{path} is cut short")
        try:
            name, size = header[:100].rstrip(b"\0").decode(), int(header[124:135], 8)
            # The checksum is taken as if its own field held eight spaces.
            whole = int(header[148:154], 8) == sum(header) - sum(header[148:156]) + 8 * 0x20
        except ValueError as error:
            raise ShardError(f"{path} {fault}: {error}") from error
        if not whole:
            raise ShardError(f"{path} {fault}: a header at byte {position} fails its checksum")
        yield _Member(name, header[156:157], position + _BLOCK, size)
        position += _BLOCK + _padded(size)
    if os.pread(descriptor, _BLOCK, position + _BLOCK) != _END:
        raise ShardError(f"{path} is cut short")


def pack(sizes: Sequence[int], limit: int = MAX_BYTES) -> list[range]:
    """Cut a sequence of photos into shards of about equal size, none above `limit` bytes.

    Args:
        sizes: `tar_bytes` of each photo.
        limit: Most bytes of a shard.

    Returns:
        One range of indices per shard, in order. A photo larger than the limit gets a shard of its own.
    """
    target = sum(sizes) / max(1, -(-sum(sizes) // limit))
    ranges: list[range] = []
    start = filled = 0
    for index, size in enumerate(sizes):
        full = filled + size > limit or (filled >= target and index > start)
        if full and index > start:
            ranges.append(range(start, index))
            start, filled = index, 0
        filled += size
    if start < len(sizes):
        ranges.append(range(start, len(sizes)))
    return ranges
