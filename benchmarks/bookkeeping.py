"""`bookkeeping`: memory and CPU of the records of a million photos, from the look to the published version.

Hashes and sizes are made up and no photo exists: pixels and embeddings are not part of it. Each step runs in a process
of its own, whose peak of resident memory counts, less that of an empty one. `unchanged source` is a whole `make` of a
version whose files are all as they were: it must read none of them, and take 60 s at most. `1,000 more` are drawn
photos that come to it: beyond the unchanged look they must take at most twice what they take alone.

    python -m benchmarks.bookkeeping [--photos 1000000]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from PIL import Image

from model_code.data import splits
from model_code.data.duplicates import near_duplicates
from model_code.data.manifest import ShardRow
from model_code.data.records import Fractions, Photo
from model_code.data.source import Candidate
from model_code.data.versions.columns import Findings, Photos, Splits
from model_code.data.versions.make import Options, make
from model_code.data.versions.plan import Version, make_version, plan_shards, rows_of
from model_code.data.versions.store import FolderStore

LIMIT_MB, LIMIT_SECONDS = 400, 120
SIZE = 20_000
MORE = 1000
CLASSES = [f"class-{number:03d}" for number in range(100)]


class Listing:
    """A source of made-up files, the same each time; only photos of `more` can be read."""

    requests = 1

    def __init__(self, count: int, more: Path | None = None) -> None:
        self.count = count
        self.more = more

    def describe(self) -> str:
        return "made-up photos"

    def stray(self) -> list[str]:
        return []

    def read(self, path: str) -> bytes:
        assert self.more is not None, path
        return (self.more / path).read_bytes()

    def candidates(self) -> Iterator[Candidate]:
        for number in range(self.count):
            label = CLASSES[number % len(CLASSES)]
            tag = hashlib.md5(b"%d" % number).hexdigest()
            yield Candidate(f"{label}/IMG_{number:08d}.jpg", label, SIZE, f"{SIZE}:{tag}")
        for path in sorted(self.more.glob("*/*.jpg")) if self.more else ():
            label, size = path.parent.name, path.stat().st_size
            yield Candidate(f"{label}/{path.name}", label, size, f"{size}:more")


def earlier(count: int) -> Findings:
    """The findings of an earlier look: one of a hundred photos resembles another one."""
    draw = random.Random(0)
    found, phash = Findings(), 1
    for number, file in enumerate(Listing(count).candidates()):
        phash = phash ^ 7 if number % 100 == 99 else draw.getrandbits(64)
        digest = hashlib.sha256(b"%d" % number).hexdigest()
        found.add(file.path, file.stamp, Photo(file.path, file.label, digest, phash, SIZE, "jpg"))
    return found


def photos_of(count: int) -> Photos:
    """The photos of the findings."""
    return Photos(earlier(count), np.arange(count, dtype=np.int32))


def version_of(photos: Photos, parent: Version | None = None) -> Version:
    """Split, plan and assemble, as an upload does, without writing a shard."""
    known = parent.known_splits if parent else Splits.of({})
    split_of, _ = splits.assign(photos, known, pairs=np.empty((0, 2), np.int64))
    plans = plan_shards(photos, split_of, 0, parent)
    shards = []
    for plan in plans:
        name = hashlib.sha256(plan.photos.digests.tobytes()).hexdigest()
        shards.append(ShardRow(name, f"datasets/x/shards/{name}.tar", plan.split, len(plan.photos), 1))
    rows = rows_of(plans, [shard.sha256 for shard in shards])
    return make_version("x", 0, Fractions(), shards, rows, [], parent)


def first(count: int, folder: Path) -> None:
    """Make a version and store it, without its shards."""
    found = earlier(count)
    version = version_of(Photos(found, np.arange(count, dtype=np.int32)))
    store = FolderStore(folder, "x")
    store.keep_looks(version, found, range(count))
    store.publish(version, None)


def one_camera(count: int, _: Path) -> None:
    """Pair and split photos of one picture, as those of a fixed camera are: 20 bits of their hashes differ."""
    photos = photos_of(count)
    hashes = np.random.default_rng(0).integers(1, 1 << 20, count, np.uint64)
    splits.assign(photos, {}, pairs=near_duplicates(hashes))


def unchanged(count: int, folder: Path) -> None:
    """Look at the same source again, as the DAG does each week."""
    made = make(FolderStore(folder, "x"), Listing(count), Options())
    assert (made["read"], made["changed"]) == (0, False), made


def draw(folder: Path) -> None:
    """Draw photos of 224 pixels, each different."""
    for number in range(MORE):
        numbers = np.random.default_rng(number).integers(0, 256, (14, 14, 3), np.uint8)
        path = folder / CLASSES[number % 10] / f"NEW_{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(numbers).resize((224, 224)).save(path, "JPEG")


def alone(_: int, folder: Path) -> None:
    """Make a version of the new photos alone."""
    made = make(FolderStore(folder, "alone"), Listing(0, folder / "more"), Options())
    assert made["read"] == MORE, made


def more(count: int, folder: Path) -> None:
    """Make a version of the photos that were there and the new ones."""
    made = make(FolderStore(folder, "x"), Listing(count, folder / "more"), Options())
    assert (made["read"], made["changed"]) == (MORE, True), made


STEPS: dict[str, Callable[[int, Path], object]] = {
    "records": lambda count, _: earlier(count),
    "look-alikes": lambda count, _: near_duplicates(photos_of(count).phashes),
    "split": lambda count, _: splits.assign(photos_of(count), {}, pairs=np.empty((0, 2), np.int64)),
    "split, one camera": one_camera,
    "first version": first,
    "unchanged source": unchanged,
    "1,000 alone": alone,
    "1,000 more": more,
}


def main() -> None:
    """Run every step, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=1_000_000)
    count = parser.parse_args().photos
    folder = tempfile.TemporaryDirectory(prefix="bookkeeping-")
    draw(Path(folder.name) / "more")
    empty, _ = run(None, count, Path(folder.name))
    print(f"{'step':20} {'peak MB':>8} {'CPU s':>7}   {count} photos")
    found = {}
    for name in STEPS:
        peak, seconds = run(name, count, Path(folder.name))
        found[name] = (peak - empty, seconds)
        print(f"{name:20} {peak - empty:8.0f} {seconds:7.1f}", flush=True)
    more_over_alone = (found["1,000 more"][1] - found["unchanged source"][1]) / found["1,000 alone"][1]
    print(
        f"1,000 more take {more_over_alone:.1f} times what they take alone, beyond the unchanged look (2 wanted)"
    )
    figure = max(peak for peak, _ in found.values())
    print(
        json.dumps(
            {
                "name": "bookkeeping",
                "figure": round(figure),
                "unit": "MB",
                "limit": LIMIT_MB,
                "peers": {f"{name}: CPU s": round(seconds, 1) for name, (_, seconds) in found.items()},
                "ratio": round(figure / LIMIT_MB, 2),
                "more_over_alone": round(more_over_alone, 2),
                "conditions": {
                    "photos": count,
                    "cpu_limit_s": LIMIT_SECONDS,
                    "load": round(os.getloadavg()[0], 1),
                },
            }
        )
    )


def run(step: str | None, count: int, folder: Path) -> tuple[float, float]:
    """Peak memory in MB and CPU seconds of a step in a fresh process."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=measured, args=(step, count, folder, there))
    process.start()
    peak, seconds = here.recv()
    process.join()
    return peak, seconds


def measured(step: str | None, count: int, folder: Path, answer: Connection) -> None:
    """Do one step and send its peak memory and CPU seconds."""
    started = time.process_time()
    if step is not None:
        STEPS[step](count, folder)
    answer.send((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000, time.process_time() - started))


if __name__ == "__main__":
    main()
