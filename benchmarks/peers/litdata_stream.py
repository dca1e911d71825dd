"""LitData: chunks of the same photos, shuffled, decoded by the workers of a StreamingDataLoader."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from litdata import StreamingDataLoader, StreamingDataset, optimize
from litdata.streaming.downloader import LocalDownloader

from benchmarks.peers.streaming import PREFETCH, Task, collate, main
from model_code.data.shards import read_shard


class Photos(StreamingDataset):
    def __init__(self, task: Task, **options: Any) -> None:
        super().__init__(**options)
        self.pixels = task.transform.pixels

    def __getitem__(self, index: Any) -> Any:
        data, label = super().__getitem__(index)
        return self.pixels(bytes(data)), label


class Samples:
    """The photos of a shard, for `optimize`."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.numbers = {name: number for number, name in enumerate(classes)}

    def __call__(self, path: str) -> Iterator[tuple[bytes, int]]:
        for sample in read_shard(Path(path)):
            yield sample.data, self.numbers[sample.label]


def delayed(seconds: float) -> None:
    """Let each chunk take longer to come."""
    download = LocalDownloader.download_file

    def slow(self: Any, remote: str, local: str) -> None:
        time.sleep(seconds)
        download(self, remote, local)

    LocalDownloader.download_file = slow


def batches(task: Task) -> Iterator[Any]:
    chunks = Path(task.chunks)
    if not (chunks / "index.json").exists():
        largest = max(Path(path).stat().st_size for path in task.paths)
        optimize(Samples(task.classes), task.paths, str(chunks), chunk_bytes=largest, num_workers=1)
    options: dict[str, Any] = {"input_dir": str(chunks)}
    if task.delay:
        delayed(task.delay)
        options = {"input_dir": f"local:{chunks}", "cache_dir": task.scratch}
    dataset = Photos(task, shuffle=True, **options)
    loader = StreamingDataLoader(
        dataset,
        batch_size=task.batch,
        num_workers=task.workers,
        prefetch_factor=PREFETCH,
        collate_fn=collate,
    )
    for _ in range(task.passes):
        yield from loader
        if task.delay:  # as if the cache could not hold all
            shutil.rmtree(task.scratch, ignore_errors=True)


if __name__ == "__main__":
    main(batches)
