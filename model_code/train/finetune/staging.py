"""Copies of the shards that are about to be read, on the local disk.

In FastFile mode SageMaker does not bring the shards to the disk: each read is a request to S3. Photos are shuffled
within a window of the shard order, so a thread copies the shards of that window and some ahead of it, each in one
sequential read, and deletes those that the window has passed. A copy is a matter of speed alone: a photo whose shard
has none is read in place, so the numbers are those of File mode whatever this thread does.

All ranks of an instance use one folder: the first one to need a shard copies it.
"""

import fcntl
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from model_code.train.finetune.index import PhotoIndex

Result = TypeVar("Result")
Batches: TypeAlias = Sequence[NDArray[np.int64]]
"""The photos of each batch of a pass over the shards, as numbers in the index."""

# The window holds 4,096 photos: 16 GB where a photo has 4 MB.
MOST_BYTES: Final = 64 * 2**30
# Left to checkpoints, the model, and copies that are deleted but still open in a decoder.
_SPARE_BYTES: Final = 10 * 2**30
# One stream from S3 brings about 80 MB/s.
_COPIERS: Final = 8
_CHUNK: Final = 2**20


def follow(results: Iterator[Result], index: "PhotoIndex", passes: Iterable[Batches]) -> Iterator[Result]:
    """Return `results`, one for each batch of `passes` in order, while a thread copies the shards they need."""
    return _followed(results, _Stager(index, passes)) if index.copies else results


def _followed(results: Iterator[Result], stager: "_Stager") -> Iterator[Result]:
    stager.start()
    try:
        for result in results:
            stager.advance()
            yield result
    finally:
        stager.stop()


class _Stager:
    """Copies shards in the order of their first use, and deletes them after their last."""

    def __init__(self, index: "PhotoIndex", passes: Iterable[Batches]) -> None:
        self._index, self._passes = index, passes
        self._bytes = np.bincount(index.shard, index.size, len(index.shards))
        # Of each shard that is there or on its way, the last batch that needs it, and its copying.
        self._held: dict[int, tuple[int, Future[None]]] = {}
        self._news = threading.Event()
        self._done = 0
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="staging", daemon=True)

    def start(self) -> None:
        """Begin to copy."""
        self._thread.start()

    def advance(self) -> None:
        """Note that the photos of one more batch have been read."""
        self._done += 1
        self._news.set()

    def stop(self) -> None:
        """Stop copying and delete the copies."""
        self._stopped = True
        self._news.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._index.copies[0].parent.mkdir(parents=True, exist_ok=True)
            with ThreadPoolExecutor(_COPIERS) as pool:
                if self._copy_ahead(pool):
                    self._wait(lambda: False)
                pool.shutdown(cancel_futures=True)
        except OSError as error:
            print(f"photos are read in place, without copies of their shards: {error}", flush=True)
        finally:
            self._delete(lambda last: True)

    def _copy_ahead(self, pool: ThreadPoolExecutor) -> bool:
        """Start copies in the order of the passes, as room allows; False: stopped."""
        begin = before = 0
        for batches in self._passes:
            # One pass ahead at most: all shards of a small data set stay, and its passes would be planned to the last.
            if not self._wait(partial(self._has_reached, before)):
                return False
            for shard, last in _uses(self._index.shard, batches):
                _, copying = self._held.get(shard, (0, None))
                if copying is None:
                    if not self._wait(partial(self._has_room, shard)):
                        return False
                    if begin + last < self._done:
                        continue
                    copying = pool.submit(_copy, self._index.shards[shard], self._index.copies[shard])
                self._held[shard] = (begin + last, copying)
            before, begin = begin, begin + len(batches)
        return True

    def _has_reached(self, batch: int) -> bool:
        return self._done >= batch

    def _has_room(self, shard: int) -> bool:
        held = self._bytes[list(self._held)].sum()
        coming = self._bytes[
            [number for number, (_, copying) in self._held.items() if not copying.done()]
        ].sum()
        free = shutil.disk_usage(self._index.copies[0].parent).free - coming
        return bool(held + self._bytes[shard] <= MOST_BYTES and free - self._bytes[shard] >= _SPARE_BYTES)

    def _wait(self, enough: Callable[[], bool]) -> bool:
        """Wait for `enough`, which news may bring, and delete what the window has passed; False: stopped."""
        while True:
            self._news.clear()
            if self._stopped:
                return False
            self._delete(lambda last: last < self._done)
            if enough():
                return True
            self._news.wait()

    def _delete(self, passed: Callable[[int], bool]) -> None:
        for shard, (last, copying) in list(self._held.items()):
            if passed(last) and copying.done():
                del self._held[shard]
                self._index.copies[shard].unlink(missing_ok=True)


def _uses(shard_of: NDArray[np.int32], batches: Batches) -> list[tuple[int, int]]:
    """Return the shards of a pass in the order of their first use, and the last batch that uses each."""
    used = shard_of[np.concatenate([np.empty(0, np.int64), *batches])]
    shards, first, places = np.unique(used, return_index=True, return_inverse=True)
    last = np.zeros(len(shards), np.int64)
    np.maximum.at(last, places, np.repeat(np.arange(len(batches)), [len(batch) for batch in batches]))
    return [(int(shards[place]), int(last[place])) for place in np.argsort(first)]


def _copy(shard: Path, copy: Path) -> None:
    """Copy a shard; the copy appears under its name only when it is complete."""
    part = copy.with_suffix(".part")
    try:
        if copy.exists():
            return
        with shard.open("rb") as source, part.open("ab") as target:
            # A lock ends with its process: what a killed one left is overwritten.
            fcntl.flock(target, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(part.stat(), os.fstat(target.fileno())):
                return  # another rank had it first
            try:
                target.truncate(0)
                shutil.copyfileobj(source, target, _CHUNK)
                target.flush()
                if os.fstat(target.fileno()).st_size < os.fstat(source.fileno()).st_size:
                    raise OSError(f"{shard} ended early")
                part.rename(copy)
            except OSError:
                part.unlink(missing_ok=True)
                raise
    except OSError:
        # Another rank is copying it, the disk is full, S3 failed: the photos are read in place, which reports errors.
        return
