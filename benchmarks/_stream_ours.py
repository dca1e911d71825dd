"""Our loader, and its decoders alone, as the benchmark `stream` measures them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.peers.streaming import PREFETCH, Task, main
from model_code.train.distributed import World
from model_code.train.finetune import staging
from model_code.train.finetune.index import PhotoIndex, index_shards
from model_code.train.finetune.loader import Photos, Plan, TrainingStream


def delayed(seconds: float) -> None:
    """Let each read in place and each copy of a shard take longer."""
    opened, copied = PhotoIndex._open, staging._copy

    def slow_open(self: PhotoIndex, number: int) -> Any:
        if not self.copies[number].exists():
            time.sleep(seconds)
        return opened(self, number)

    def slow_copy(shard: Path, copy: Path) -> None:
        time.sleep(seconds)
        copied(shard, copy)

    PhotoIndex._open = slow_open  # type: ignore[method-assign]
    staging._copy = slow_copy


def batches(task: Task) -> Iterator[Any]:
    """The loader: from disk, or with a delay from copies that come and go."""
    index = index_shards((Path(task.shards),), task.classes, Path(task.scratch) if task.delay else None)
    if task.delay:
        delayed(task.delay)
    plan = Plan(index, task.batch, 0, World())
    stream = TrainingStream(Photos(index, task.transform), plan, task.passes, task.workers)
    for epoch in range(task.passes):
        for step in range(plan.steps):
            yield stream.batch(epoch, step)
    stream.close()


class _InMemory(Dataset[Any]):
    """Photos that are in memory already, decoded into one batch that is used again: nothing but decoding."""

    def __init__(self, task: Task) -> None:
        index = index_shards((Path(task.shards),), task.classes)
        self._data = [index.read(photo) for photo in range(len(index))]
        self._pixels = task.transform.pixels

    def __len__(self) -> int:
        return len(self._data)

    def __getitems__(self, numbers: Sequence[int]) -> tuple[torch.Tensor, int]:
        for number in numbers:
            self._pixels(self._data[number])
        return torch.empty(0, dtype=torch.uint8), len(numbers)


def decoders(task: Task) -> Iterator[Any]:
    """The limit: the same processes decode, and hand nothing on but how many."""
    loader = DataLoader(
        _InMemory(task),
        batch_size=task.batch,
        num_workers=task.workers,
        prefetch_factor=PREFETCH,
        collate_fn=lambda batch: batch,
    )
    for _ in range(task.passes):
        for _, count in loader:
            yield torch.empty((count, 0), dtype=torch.uint8), range(count)


if __name__ == "__main__":
    main(decoders if sys.argv[2] == "decoders" else batches)
