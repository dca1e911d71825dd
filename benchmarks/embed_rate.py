"""embed-rate: photos per second from shards to embeddings, against the best raw forward pass on the same machine.

The raw forward pass (random numbers in, nothing decoded, nothing kept) is measured in every runtime there is, in
turns with embedding, so that a busy machine slows all of them equally; figures are medians over the rounds. Then the
whole job runs as a process over few and over all photos, for its memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks._shared import need, shared
from model_code.data import shards
from model_code.data.scan import examine
from model_code.data.shards import Sample, Split, pack, tar_bytes, write_shard
from model_code.data.source import Candidate, Folder
from model_code.data.transform import Transform, for_architecture
from model_code.embed import embedding
from model_code.embed.embeddings import Embedder
from model_code.embed.forward import Forward, best_forward, to_onnx
from model_code.networks.backbone import build_backbone
from model_code.process.cores import cores
from model_code.process.progress import Progress

LIMIT = 0.9
FEW = 1000
PER_ROUND = 400


def write_shards(source: Folder, candidates: list[Candidate], folder: Path) -> list[Path]:
    """All photos as training shards, as upload writes them."""
    folder.mkdir()
    sizes = [tar_bytes(candidate.bytes, candidate.label) for candidate in candidates]
    paths = []
    for part in pack(sizes):

        def samples(part: range = part) -> list[Sample]:
            found = []
            for candidate in (candidates[index] for index in part):
                data = source.read(candidate.path)
                photo = examine(candidate, data)
                found.append(Sample(photo.key, photo.label, data, photo.suffix))
            return found

        info = write_shard(folder / "shard", Split.TRAIN, samples())
        paths.append((folder / "shard").rename(folder / f"{info.sha256}.tar"))
    return paths


def rate_of(run: Callable[[], int], threads: int, seconds: float) -> float:
    """Photos per second of `run`, which returns its photos, on `threads` threads at once."""
    done = [0] * threads
    deadline = time.perf_counter() + seconds

    def work(index: int) -> None:
        while time.perf_counter() < deadline:
            done[index] += run()

    workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    started = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(done) / (time.perf_counter() - started)


class Forwards:
    """The raw forward pass in every runtime: name -> photos per second over some seconds."""

    def __init__(self, model: Path, side: int, seconds: float) -> None:
        import onnxruntime

        self._model, self._side, self._seconds = model, side, seconds
        self._cores = cores()
        self._numbers = np.random.default_rng(0)
        self._sessions = {}
        for threads in sorted({1, self._cores}):
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            self._sessions[threads] = onnxruntime.InferenceSession(
                str(model), options, providers=["CPUExecutionProvider"]
            )

    def round(self) -> dict[str, float]:
        """One measurement of each."""
        rates = {
            f"onnxruntime, one call per core, batch {batch}": self._onnx(1, self._cores, batch)
            for batch in (1, 2, 8)
        }
        rates |= {
            f"onnxruntime, all cores per call, batch {batch}": self._onnx(self._cores, 1, batch)
            for batch in (8, 32)
        }
        rates |= {f"openvino, throughput mode, batch {batch}": self._in_openvino(batch) for batch in (1, 8)}
        return rates

    def _onnx(self, threads: int, calls: int, batch: int) -> float:
        photos = self._numbers.standard_normal((batch, 3, self._side, self._side), np.float32)
        session = self._sessions[threads]

        def run() -> int:
            session.run(None, {"input": photos})
            return batch

        run()
        return rate_of(run, calls, self._seconds)

    def _in_openvino(self, batch: int) -> float:
        program = Path(__file__).parent / "peers" / "openvino_forward.py"
        numbers = [batch, self._side, self._cores, self._seconds]
        command = [sys.executable, program, self._model, *numbers]
        answer = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)
        return float(answer.stdout.split()[-1])


def embedding_rate(shard: Path, embedder: Embedder, forward: Forward) -> float:
    """Photos per second of the job's own loop over one shard."""
    with Path(os.devnull).open("w") as silent:
        progress = Progress(shards.count_photos(shard), "photos", stream=silent)
        started = time.perf_counter()
        batch = embedding.embed_shard(shard, embedder, forward, progress)
        return len(batch.embeddings) / (time.perf_counter() - started)


def job(shards: Path, weights: Path, output: Path, architecture: str) -> tuple[float, float, float]:
    """The embed job as a process of its own: photos per second, seconds in all, peak memory in MB."""
    command = [
        sys.executable,
        "-m",
        "model_code.embed",
        "--shards",
        shards,
        "--weights",
        weights,
        "--output",
        output,
    ]
    command += ["--architecture", architecture]
    started = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said, memory = "", 0.0
    for line in process.stdout:
        said += line
        memory = max(memory, _peak_memory(process.pid))
    if process.wait() != 0:
        sys.exit(f"the embed job failed:\n{said}")
    rate = float(said.split("photos_per_second=")[-1].split()[0])
    return rate, time.perf_counter() - started, memory


def _peak_memory(pid: int) -> float:
    """Peak resident memory in MB. Not wait4's figure: that one starts from the memory of the process that forked."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return 0.0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(found[0]) / 1024 if found else 0.0


def main() -> int:
    """Print the tables, then the line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embed_rate", description=__doc__)
    parser.add_argument("--data", type=Path, default=shared("data/stanford-dogs"), help="a folder per class")
    parser.add_argument("--weights", type=Path, default=shared("weights/mobilenet_v2_imagenet.pth"))
    parser.add_argument("--architecture", default="mobilenet_v2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement in a round")
    options = parser.parse_args()
    need(options.data, options.weights)
    source = Folder(options.data)
    candidates = list(source.candidates())
    step = max(1, len(candidates) // FEW)
    transform = for_architecture(options.architecture)
    with tempfile.TemporaryDirectory(prefix="embed-rate-") as folder:
        everything = write_shards(source, candidates, Path(folder, "all"))
        few = write_shards(source, candidates[::step][:FEW], Path(folder, "few"))
        (one,) = write_shards(source, candidates[::step][:PER_ROUND], Path(folder, "one"))
        rates = _rates(options, transform, one, Path(folder, "backbone.onnx"))
        small = job(few[0].parent, options.weights, Path(folder, "out-few"), options.architecture)
        large = job(everything[0].parent, options.weights, Path(folder, "out-all"), options.architecture)
    _report(options, rates, len(candidates), small, large)
    return 0


def _rates(options: argparse.Namespace, transform: Transform, shard: Path, model: Path) -> dict[str, float]:
    backbone = build_backbone(options.architecture, options.weights)
    model.write_bytes(to_onnx(backbone, torch.zeros(2, 3, transform.crop, transform.crop)))
    forwards = Forwards(model, transform.crop, options.seconds)
    forward = best_forward(backbone, transform)
    embedder = Embedder(options.architecture, "none", transform)
    measured: dict[str, list[float]] = {}
    for number in range(options.rounds):
        for name, rate in {
            "embed": embedding_rate(shard, embedder, forward),
            **forwards.round(),
        }.items():
            measured.setdefault(name, []).append(rate)
        print(
            f"round {number + 1} of {options.rounds}: embed {measured['embed'][-1]:.0f} photos/s", flush=True
        )
    print(f"\n{'photos per second (median)':<48} {'rate':>8}")
    medians = {name: median(rates) for name, rates in measured.items()}
    for name, rate in medians.items():
        print(f"{name:<48} {rate:>8.1f}")
    return medians


def _report(
    options: argparse.Namespace,
    rates: dict[str, float],
    photos: int,
    small: tuple[float, float, float],
    large: tuple[float, float, float],
) -> None:
    print(f"\n{'the whole job':<16} {'photos':>8} {'photos/s':>9} {'seconds':>8} {'peak memory':>12}")
    for name, count, (rate, seconds, memory) in (("few photos", FEW, small), ("all photos", photos, large)):
        print(f"{name:<16} {count:>8} {rate:>9.1f} {seconds:>8.1f} {memory:>9.0f} MB")
    peers = {name: round(rate, 1) for name, rate in rates.items() if name != "embed"}
    conditions = (
        f"{options.architecture} float32, {options.data.name}, {cores()} cores, load {os.getloadavg()[0]:.1f}, "
        f"medians of {options.rounds} rounds; "
        f"peak memory {small[2]:.0f} MB for {FEW} photos, {large[2]:.0f} MB for {photos}"
    )
    line = {
        "name": "embed-rate",
        "figure": round(rates["embed"], 1),
        "unit": "photos/s",
        "limit": LIMIT,
        "peers": peers,
        "ratio": round(rates["embed"] / max(peers.values()), 3),
        "conditions": conditions,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    sys.exit(main())
