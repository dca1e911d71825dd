"""`serving-rate`: the highest rate with a p99 under 15 ms, by MLPerf's server scenario (`_serving_poisson`).

Poisson arrivals; a latency counts from the moment for which its query was scheduled. The rate is found by bisection, up
to what the server answers when saturated. Ours is held against two servers around the
same predictor and session, and against a server that costs nothing: the in-process times of single photos, drawn at
random, through a simulated queue with as many workers (`serving_latency.queue`). All take turns in rounds, because a
shared machine changes its speed; medians over the rounds count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import _serving, _serving_load, _serving_model
from benchmarks._serving import PEERS, REPOSITORY, InProcess, Peer, Running
from benchmarks.serving_latency import queue

BOUND_MS = 15.0
FREE_BAR, PEER_BAR = 0.9, 1.15
SAME_SESSION = ("litserve-onnx-int8", "granian-onnx-int8")


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=float, default=8, help="of each measurement")
    arguments.add_argument("--steps", type=int, default=7, help="of each bisection")
    chosen = arguments.parse_args()
    _serving_load.wrk()
    print(json.dumps(measure(_serving_model.bundle(), chosen)))
    return 0


def measure(bundle: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """Let ours, the peers and the simulated server take turns."""
    rates: dict[str, list[float]] = {"ours": [], "free": []}
    missing: dict[str, str] = {}
    for number in range(chosen.rounds):
        with _serving.ours(bundle, "--runtime", "onnx-int8") as running:
            rates["ours"].append(highest_rate(running, chosen))
            info = _serving.serve_info(running)
        rates["free"].append(free_rate(bundle, info, chosen.steps))
        for peer in (peer for peer in PEERS if peer.name in SAME_SESSION and peer.name not in missing):
            reason = _add(rates.setdefault(peer.name, []), peer, bundle, chosen)
            if reason:
                missing[peer.name] = reason
        print(
            f"round {number + 1}: " + "  ".join(f"{n} {r[-1]:.0f}/s" for n, r in rates.items() if r),
            flush=True,
        )
    found = {name: statistics.median(values) for name, values in rates.items() if values}
    peers = {name: round(found[name], 1) for name in SAME_SESSION if name in found}
    ratio = round(found["ours"] / max(peers.values()), 3) if peers else None
    of_free = round(found["ours"] / found["free"], 3)
    print(f"ours {of_free} of the free server (bar {FREE_BAR}), {ratio} of the best peer (bar {PEER_BAR})")
    return {
        "name": "serving-rate",
        "figure": round(found["ours"], 1),
        "unit": f"photos/s with p99 under {BOUND_MS:g} ms",
        "limit": round(found["free"], 1),
        "peers": peers,
        "ratio": ratio,
        "conditions": _serving.conditions(
            ratio=f"over the best server with the same session, bar {PEER_BAR}",
            limit=f"simulated server that costs nothing, bar {FREE_BAR}",
            of_limit=of_free,
            load="open loop in Python, one process, same machine",
            rounds={name: [round(rate, 1) for rate in values] for name, values in rates.items()},
            not_measured=missing,
        ),
    }


def _add(rates: list[float], peer: Peer, bundle: Path, chosen: argparse.Namespace) -> str | None:
    """Measure a peer; return why it cannot be."""
    try:
        with _serving.peer(peer, bundle) as running:
            rates.append(highest_rate(running, chosen))
    except RuntimeError as reason:
        return str(reason)
    return None


def highest_rate(running: Running, chosen: argparse.Namespace) -> float:
    """Return the highest rate, in photos/s, at which p99 stays under the bound and no query fails."""
    with _serving_load.bodies(running.wire) as folder:
        _serving_load.load(running, folder, 16, 2)
        capacity = _serving_load.load(running, folder, 16, 4).rate

        def holds(rate: float) -> bool:
            found = poisson(running, folder, rate, chosen.seconds)
            return found["p99"] < BOUND_MS and not found["errors"]

        return bisect(holds, capacity, chosen.steps)


def poisson(running: Running, folder: Path, rate: float, seconds: float) -> dict[str, float]:
    """Drive a server by `_serving_poisson`, in a process of its own; return its report."""
    _serving_load.wait_for_an_answer(running)
    wire = running.wire
    arguments = [str(running.port), wire.path, wire.content_type, str(folder), str(rate), str(seconds), "1"]
    command = [*_serving_load.FIRST, sys.executable, "-m", "benchmarks._serving_poisson", *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    report: dict[str, float] = json.loads(done.stdout)
    return report


def free_rate(bundle: Path, info: dict[str, str], steps: int) -> float:
    """Return the highest rate of a simulated server that costs nothing beyond the work itself."""
    workers = int(info["processes"]) * int(info["workers"])
    with InProcess(bundle, info) as process:
        times = process.alone()
        busy = process.busy()["per_second"]
    single = statistics.mean(times)
    slower = max(1.0, 1000 * workers / busy / single)
    return bisect(lambda rate: queue(times, rate, workers, slower)[1] < BOUND_MS, busy, 2 * steps)


def bisect(holds: Callable[[float], bool], capacity: float, steps: int) -> float:
    """Return the highest rate that holds, up to `capacity`."""
    low, high = 0.0, capacity
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


if __name__ == "__main__":
    sys.exit(main())
