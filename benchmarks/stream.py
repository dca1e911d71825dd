"""stream: photos per second from shards to decoded batches, ours next to WebDataset and LitData, with as many workers.

All decode and resize with our transform and shuffle the same way; LitData reads chunks of the same photos.
The limit is the decoders alone, on photos in memory. Then again where each open of an object takes 40 ms, as in S3:
ours reads copies that its thread makes. The loaders take turns; figures are medians over the rounds.
`ratio` is the worse of the two, ours over the better peer.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks._shared import need, shared
from benchmarks.peers import environment
from benchmarks.peers.streaming import Task
from model_code.data.scan import examine
from model_code.data.shards import Sample, Split, pack, tar_bytes, write_shard
from model_code.data.source import Folder
from model_code.process.cores import cores

OURS, LIMIT = "ours", "decoders"
PEERS = {"webdataset": "webdataset_stream", "litdata": "litdata_stream"}
A_SHARD = 8 * 2**20
DELAY = 0.04


def write_shards(photos: Path, folder: Path) -> tuple[tuple[str, ...], int]:
    """Write all photos in an order that mixes the classes, as upload does; the classes, and the number of photos."""
    source = Folder(photos)
    candidates = sorted(source.candidates(), key=lambda one: Path(one.path).name)
    for part in pack([tar_bytes(one.bytes, one.label) for one in candidates], A_SHARD):
        samples = []
        for one in candidates[part.start : part.stop]:
            data = source.read(one.path)
            photo = examine(one, data)
            samples.append(Sample(photo.key, photo.label, data, photo.suffix))
        info = write_shard(folder / "shard", Split.TRAIN, samples)
        (folder / "shard").rename(folder / f"{info.sha256}.tar")
    return tuple(sorted({one.label for one in candidates})), len(candidates)


def rate(name: str, task: Task) -> float:
    """Photos per second of one loader, in a process of its own."""
    shutil.rmtree(task.scratch, ignore_errors=True)
    if name in PEERS:
        command = [str(environment.python()), "-m", f"benchmarks.peers.{PEERS[name]}", task.to_json()]
    else:
        command = [sys.executable, "-m", "benchmarks._stream_ours", task.to_json(), name]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-2000:]}")
    return float(done.stdout.rpartition("photos_per_second=")[2].split()[0])


def compare(task: Task, names: list[str], rounds: int) -> dict[str, float]:
    """Median rate of each loader, in turns."""
    rates: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            rates[name].append(rate(name, task))
    found = {name: round(median(values), 1) for name, values in rates.items()}
    print(f"\nphotos/s, {1000 * task.delay:.0f} ms per open, {task.workers} workers")
    for name, value in found.items():
        print(f"  {name:12} {value:9.1f}   {value / found[OURS]:.3f} of ours")
    return found


def main() -> int:
    """Print the tables, then the line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stream", description=__doc__)
    parser.add_argument("--data", type=Path, default=shared("data/stanford-dogs"), help="a folder per class")
    parser.add_argument("--architecture", default="mobilenet_v2", help="whose transform decodes")
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    need(options.data)
    missing = {name: reason for name in PEERS if (reason := environment.install(name))}
    peers = [name for name in PEERS if name not in missing]
    with tempfile.TemporaryDirectory(prefix="stream-") as folder:
        shards = Path(folder, "shards")
        shards.mkdir()
        classes, photos = write_shards(options.data, shards)
        task = Task(
            shards=str(shards),
            chunks=str(Path(folder, "chunks")),
            scratch=str(Path(folder, "scratch")),
            classes=classes,
            architecture=options.architecture,
            workers=options.workers,
            batch=options.batch,
            passes=options.passes,
            delay=0.0,
        )
        if "litdata" in peers:
            rate("litdata", replace(task, passes=1))  # makes its chunks
        disk = compare(task, [OURS, *peers, LIMIT], options.rounds)
        slow = compare(replace(task, delay=DELAY), [OURS, *peers], options.rounds)
    ratios = [round(found[OURS] / max(found[name] for name in peers), 3) for found in (disk, slow) if peers]
    print(
        json.dumps(
            {
                "name": "stream",
                "figure": disk[OURS],
                "unit": "photos/s",
                "limit": disk[LIMIT],
                "peers": {name: disk[name] for name in peers} | missing,
                "ratio": min(ratios, default=None),
                "with_delay": {**slow, "seconds_per_open": DELAY},
                "ratios": ratios,
                "conditions": {
                    "photos": photos,
                    **{name: str(value) for name, value in vars(options).items()},
                },
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
