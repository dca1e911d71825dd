"""`bookkeeping`: memory and CPU of the records of a million photos, from the look to the published version.

Hashes and sizes are made up and no photo exists: pixels and embeddings are not part of it. Each step runs in a process
of its own, whose peak of resident memory counts, less that of an empty one.

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
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

from model_code.data import splits
from model_code.data.duplicates import near_duplicates
from model_code.data.manifest import ShardRow, Version, make_version, photo_rows, photos_jsonl, plan_shards
from model_code.data.records import Fractions, Photo
from model_code.data.versions import looks

LIMIT_MB, LIMIT_SECONDS = 400, 120
CLASSES = [f"class-{number:03d}" for number in range(100)]


def photos_of(count: int) -> list[Photo]:
    """Made-up photos, the same each time."""
    draw = random.Random(0)
    return [
        Photo(
            f"{CLASSES[n % 100]}/IMG_{n:08d}.jpg", CLASSES[n % 100], hashlib.sha256(b"%d" % n).hexdigest(),
            draw.getrandbits(64), 20_000 + n % 1000, "jpg",
        )
        for n in range(count)
    ]  # fmt: skip


def version_of(photos: list[Photo]) -> Version:
    """Split, plan and assemble, as an upload does, without writing a shard."""
    split_of, _ = splits.assign(photos, {}, pairs=[])
    shards, rows = [], []
    for plan in plan_shards(photos, split_of, 0, None):
        name = hashlib.sha256("".join(photo.sha256 for photo in plan.photos).encode()).hexdigest()
        shards.append(ShardRow(name, f"datasets/x/shards/{name}.tar", plan.split, len(plan.photos), 1))
        rows += photo_rows(plan, name)
    return make_version("x", 0, Fractions(), shards, rows, [], None)


STEPS: dict[str, Callable[[int], object]] = {
    "records": photos_of,
    "look-alikes": lambda count: near_duplicates([photo.phash for photo in photos_of(count)]),
    "split and manifest": lambda count: version_of(photos_of(count)),
    "photos.jsonl": lambda count: photos_jsonl(version_of(photos_of(count)).photos),
    "looks": lambda count: looks.from_bytes(
        looks.to_bytes({photo.path: (f"{photo.bytes}:etag", photo) for photo in photos_of(count)})
    ),
}


def main() -> None:
    """Run every step, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=1_000_000)
    count = parser.parse_args().photos
    empty, _ = run(None, count)
    print(f"{'step':20} {'peak MB':>8} {'CPU s':>7}   {count} photos")
    found = {}
    for name in STEPS:
        peak, seconds = run(name, count)
        found[name] = (peak - empty, seconds)
        print(f"{name:20} {peak - empty:8.0f} {seconds:7.1f}", flush=True)
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
                "conditions": {
                    "photos": count,
                    "cpu_limit_s": LIMIT_SECONDS,
                    "load": round(os.getloadavg()[0], 1),
                },
            }
        )
    )


def run(step: str | None, count: int) -> tuple[float, float]:
    """Peak memory in MB and CPU seconds of a step in a fresh process."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=measured, args=(step, count, there))
    process.start()
    peak, seconds = here.recv()
    process.join()
    return peak, seconds


def measured(step: str | None, count: int, answer: Connection) -> None:
    """Do one step and send its peak memory and CPU seconds."""
    started = time.process_time()
    if step is not None:
        STEPS[step](count)
    answer.send((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000, time.process_time() - started))


if __name__ == "__main__":
    main()
