"""Index of the photos in a set of shards: where each one's bytes are, so that any photo is one read."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model_code.data.shards import Entry, ShardError, index_shard, shards_in

# A process may often have no more than 1,024 files open, and each decoder holds its own.
_OPEN_SHARDS: Final = 64
# In FastFile mode each header is a request to S3, and waiting for it takes no core.
_INDEXERS: Final = 64


@dataclass(frozen=True, eq=False)
class PhotoIndex:
    """The position of every photo in a set of shards.

    Args:
        shards: The tar files.
        shard: Of each photo, the number of its shard, [photos].
        offset: Where in the file its bytes begin, [photos].
        size: How many they are, [photos].
        labels: Its class, [photos].
        keys: Its key.
        copies: Where a copy of each shard may come and go, see `staging`; empty: the shards are on a disk.
    """

    shards: tuple[Path, ...]
    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    labels: NDArray[np.int64]
    keys: tuple[str, ...]
    copies: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, photo: int) -> bytes:
        """Return the bytes of one photo's file."""
        shard = self._open(self.shard[photo])
        return os.pread(shard.descriptor, int(self.size[photo]), int(self.offset[photo]))

    def _open(self, number: int) -> "_Opened":
        if self.copies and self.copies[number].exists():
            try:
                return _opened(self.copies[number])
            except FileNotFoundError:
                pass  # deleted just now
        return _opened(self.shards[number])

    def digest(self) -> str:
        """Identifies the photos and labels, so that a checkpoint is never resumed on other data."""
        names = hashlib.sha256("\n".join(self.keys).encode())
        names.update(self.labels.tobytes())
        return names.hexdigest()[:16]


class _Opened:
    """An open shard; closed with its last reference, so never while a thread reads from it."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


@lru_cache(maxsize=_OPEN_SHARDS)
def _opened(path: Path) -> _Opened:
    # A shard is read from again and again while its photos are in the window. pread needs no position, so forked
    # workers can share it.
    return _Opened(path)


@lru_cache(maxsize=4)
def index_shards(
    folders: tuple[Path, ...],
    classes: tuple[str, ...],
    staging: Path | None = None,
    named: tuple[frozenset[str], ...] = (),
) -> PhotoIndex:
    """Index shards by their headers; no photo is read.

    Cached, because all trials of a packed search read the same files, and listing a folder may mean requests to S3.

    Args:
        folders: Channel folders.
        classes: Classes by number.
        staging: Folder for copies, where reading the shards means requests to S3.
        named: For each folder the shards to take, see `shards_in`; all of them where it is left out.

    Raises:
        ShardError: No shards, a damaged one, or a class that is not one of `classes`.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    wanted = named or (frozenset(),) * len(folders)
    paths = [path for folder, names in zip(folders, wanted, strict=True) for path in shards_in(folder, names)]
    if not paths:
        raise ShardError(f"no .tar shard in {', '.join(map(str, folders))}; give folders that upload wrote")
    shard: list[int] = []
    rows: list[tuple[int, int, int]] = []
    keys: list[str] = []
    # From a disk, one thread is the fastest.
    with ThreadPoolExecutor(_INDEXERS if staging else 1) as pool:
        for number, entries in enumerate(pool.map(_entries, paths)):
            for entry in entries:
                if entry.label not in numbers:
                    raise ShardError(
                        f"{paths[number]} holds photos of {entry.label!r}, which the manifest does not list"
                    )
                shard.append(number)
                rows.append((entry.offset, entry.size, numbers[entry.label]))
                keys.append(entry.key)
        copies = tuple(pool.map(lambda path: _copy_of(path, staging), paths)) if staging else ()
    columns = np.asarray(rows, np.int64).reshape(-1, 3)
    return PhotoIndex(
        shards=tuple(paths),
        shard=np.asarray(shard, np.int32),
        offset=columns[:, 0],
        size=columns[:, 1],
        labels=columns[:, 2],
        keys=tuple(keys),
        copies=copies,
    )


def _entries(path: Path) -> Sequence[Entry]:
    return list(index_shard(path))


def _copy_of(path: Path, staging: Path) -> Path:
    # What an earlier run left behind is only read if it is a copy of this very file.
    facts = path.stat()
    identity = f"{path.resolve()}:{facts.st_size}:{facts.st_mtime_ns}"
    return staging / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.tar"
