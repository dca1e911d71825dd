"""WebDataset: shards shuffled, photos shuffled within a buffer, decoded by the workers of a WebLoader."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import webdataset as wds

from benchmarks.peers.streaming import PREFETCH, WINDOW, Task, collate, main


def batches(task: Task) -> Iterator[Any]:
    numbers = {name.encode(): number for number, name in enumerate(task.classes)}
    urls = [f"pipe:sleep {task.delay}; cat {path}" if task.delay else path for path in task.paths]
    dataset = (
        wds.WebDataset(urls, shardshuffle=len(urls), seed=0)
        .shuffle(WINDOW)
        .to_tuple("jpg;jpeg;png;webp", "cls")
        .map_tuple(task.transform.pixels, numbers.__getitem__)
        .batched(task.batch, collation_fn=collate)
    )
    loader = wds.WebLoader(dataset, batch_size=None, num_workers=task.workers, prefetch_factor=PREFETCH)
    for _ in range(task.passes):
        yield from loader


if __name__ == "__main__":
    main(batches)
