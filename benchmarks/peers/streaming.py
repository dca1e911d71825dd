"""The task of a loader in the benchmark `stream`, and its measurement."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model_code.data.transform import Transform, for_architecture

WINDOW = 4096
PREFETCH = 4


@dataclass(frozen=True)
class Task:
    """A measurement.

    Attributes:
        shards: Folder with the shards.
        chunks: Folder with LitData's chunks of the same photos.
        scratch: Folder for copies and caches.
        classes: Names of the classes.
        architecture: Its transform decodes the photos.
        workers: Processes that decode.
        batch: Photos per batch.
        passes: Passes over all photos.
        delay: Seconds that each open of an object takes; 0: it is a file.
    """

    shards: str
    chunks: str
    scratch: str
    classes: tuple[str, ...]
    architecture: str
    workers: int
    batch: int
    passes: int
    delay: float

    @property
    def transform(self) -> Transform:
        """The transform that decodes and resizes a photo."""
        return for_architecture(self.architecture)

    @property
    def paths(self) -> list[str]:
        """The shards."""
        return sorted(str(path) for path in Path(self.shards).glob("*.tar"))

    def to_json(self) -> str:
        """Write it as an argument."""
        return json.dumps(asdict(self))


def main(batches: Callable[[Task], Iterator[Any]]) -> None:
    """Read a task from the command line, and print the photos per second of its batches.

    The clock starts with the first batch, so that starting processes does not count.
    """
    given = json.loads(sys.argv[1])
    task = Task(**{**given, "classes": tuple(given["classes"])})
    stream = batches(task)
    next(stream)
    started, photos = time.perf_counter(), 0
    for pixels, labels in stream:
        assert pixels.dtype == torch.uint8
        assert len(pixels) == len(labels)
        photos += len(labels)
    print(f"photos_per_second={photos / (time.perf_counter() - started):.1f}")


def collate(samples: list[tuple[np.ndarray, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack decoded photos as our loader does: pixels uint8 [n, h, w, 3], labels [n]."""
    pixels, labels = zip(*samples, strict=True)
    return torch.from_numpy(np.stack(pixels)), torch.tensor(labels)
