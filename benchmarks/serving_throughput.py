"""`serving-throughput`: photos per second at saturation, against the usual PyTorch servers in the same run.

Also reports the server's CPU time per photo against that of the same work without a server.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import _serving, _serving_load
from benchmarks._serving import PEERS, Running
from benchmarks._serving_load import Load
from model_code.predict.unknown import UNKNOWN

INT8_BAR, FLOAT_BAR = 6.0, 3.0
CPU_BAR = 1 / 0.85


@dataclass(frozen=True)
class Saturated:
    """A server at its best number of connections."""

    load: Load
    connections: int
    cpu_ms: float


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=10, help="of each measurement")
    arguments.add_argument("--connections", type=int, nargs="+", default=[16, 64])
    arguments.add_argument("--skip-peers", action="store_true")
    arguments.add_argument(
        "--unknown",
        type=int,
        default=0,
        help="only compare with a model that has no score of unknown photos; rounds",
    )
    chosen = arguments.parse_args()
    from benchmarks import _serving_model

    _serving_load.wrk()
    if chosen.unknown:
        return cost_of_unknown(_serving_model.bundle(), chosen)
    result = measure(_serving_model.bundle(), chosen)
    print(json.dumps(result))
    return 0


def measure(bundle: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """Run all servers one after another."""
    ours: dict[str, Saturated] = {}
    costs: dict[str, dict[str, Any]] = {}
    for runtime in ("onnx-int8", "onnx"):
        with _serving.ours(bundle, "--runtime", runtime) as running:
            info = _serving.serve_info(running)
            if info["runtime"] != runtime:
                sys.exit(f"the server fell back from {runtime} to {info['runtime']}: see {running.name}.log")
            ours[runtime] = saturate(running, chosen)
        with _serving.InProcess(bundle, info) as process:
            costs[runtime] = process.busy()
        show(f"ours, {runtime}", ours[runtime], costs[runtime]["cpu_ms"])
    peers, missing = ({}, {}) if chosen.skip_peers else measure_peers(bundle, chosen)
    return summary(ours, costs, peers, missing)


def cost_of_unknown(bundle: Path, chosen: argparse.Namespace) -> int:
    """Serve the model as it is and as one of an older release in turn, and print what the score costs."""
    rates: dict[str, list[float]] = {"with": [], "without": []}
    with tempfile.TemporaryDirectory() as folder:
        without = Path(shutil.copytree(bundle, Path(folder) / "bundle"))
        card = json.loads((without / "model.json").read_text())
        del card["files"][UNKNOWN]
        (without / "model.json").write_text(json.dumps(card))
        for _ in range(chosen.unknown):
            for name, served in (("with", bundle), ("without", without)):
                with _serving.ours(served, "--runtime", "onnx-int8") as running:
                    found = saturate(running, chosen)
                show(f"{name} the score", found)
                rates[name].append(found.load.rate)
    with_, without_ = (statistics.median(rates[name]) for name in ("with", "without"))
    print(
        json.dumps(
            {
                "name": "serving-throughput, unknown",
                "figure": round(with_ / without_, 3),
                "unit": "rate with the score over the rate without",
                "limit": 0.95,
                "peers": {"without": round(without_, 1)},
                "ratio": round(with_ / without_ / 0.95, 3),
                "conditions": _serving.conditions(rounds=chosen.unknown),
            }
        )
    )
    return 0


def measure_peers(bundle: Path, chosen: argparse.Namespace) -> tuple[dict[str, Saturated], dict[str, str]]:
    """Rates of the peers, and why others have none."""
    peers, missing = {}, {}
    for candidate in PEERS:
        try:
            with _serving.peer(candidate, bundle) as running:
                peers[candidate.name] = saturate(running, chosen)
            show(candidate.name, peers[candidate.name])
        except RuntimeError as reason:
            missing[candidate.name] = str(reason)
            print(f"{candidate.name:<22} {reason}", flush=True)
    return peers, missing


def saturate(running: Running, chosen: argparse.Namespace) -> Saturated:
    """The best of several numbers of connections in closed loop."""
    best: Saturated | None = None
    with _serving_load.bodies(running.wire) as folder:
        _serving_load.load(running, folder, chosen.connections[0], min(3, chosen.seconds))
        for connections in chosen.connections:
            before = running.cpu_seconds()
            load = _serving_load.load(running, folder, connections, chosen.seconds)
            cpu_ms = 1000 * (running.cpu_seconds() - before) / max(1, load.requests)
            if best is None or load.rate > best.load.rate:
                best = Saturated(load, connections, cpu_ms)
    assert best is not None
    return best


def show(name: str, found: Saturated, in_process_ms: float | None = None) -> None:
    """A line of the table."""
    load = found.load
    line = f"{name:<22} {load.rate:7.1f} photos/s  p50 {load.p50:6.1f} ms  p99 {load.p99:6.1f} ms"
    line += f"  {found.cpu_ms:6.2f} CPU ms/photo  {found.connections} connections  {load.errors} errors"
    if in_process_ms is not None:
        line += f"  in-process {in_process_ms:.2f} CPU ms ({found.cpu_ms / in_process_ms:.3f}x, bar {CPU_BAR:.3f}x)"
    print(line, flush=True)


def summary(
    ours: dict[str, Saturated],
    costs: dict[str, dict[str, Any]],
    peers: dict[str, Saturated],
    missing: dict[str, str],
) -> dict[str, Any]:
    """The line of JSON."""
    eager = {candidate.name for candidate in PEERS if candidate.eager}
    best = max((found.load.rate for name, found in peers.items() if name in eager), default=None)
    ratios = {
        runtime: None if best is None else round(found.load.rate / best, 2) for runtime, found in ours.items()
    }
    print(f"against the best torch-eager peer: int8 {ratios['onnx-int8']}x (bar {INT8_BAR}x), "
          f"float32 {ratios['onnx']}x (bar {FLOAT_BAR}x)")  # fmt: skip
    return {
        "name": "serving-throughput",
        "figure": round(ours["onnx-int8"].load.rate, 1),
        "unit": "photos/s",
        "limit": round(costs["onnx-int8"]["per_second"], 1),
        "peers": {name: round(found.load.rate, 1) for name, found in peers.items()},
        "ratio": ratios["onnx-int8"],
        "conditions": _serving.conditions(
            ratio="int8 over the best torch-eager peer, bar 6",
            limit="the same work in one process without a server",
            float32=round(ours["onnx"].load.rate, 1),
            float32_ratio=ratios["onnx"],
            float32_bar=FLOAT_BAR,
            cpu_ratio={r: round(found.cpu_ms / costs[r]["cpu_ms"], 3) for r, found in ours.items()},
            cpu_bar=round(CPU_BAR, 3),
            errors={runtime: found.load.errors for runtime, found in ours.items()},
            not_measured=missing,
        ),
    }


if __name__ == "__main__":
    sys.exit(main())
