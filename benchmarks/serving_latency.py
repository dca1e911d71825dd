"""`serving-latency`: what a user waits at half of the server's capacity, beside the same work without a server.

Open loop: Poisson arrivals (64 users with exponential think times, in a wrk process of its own on the same cores) at
half of the rate that the server reached when saturated a moment before. Every latency is from the first byte sent to
the last byte received.

The in-process time of one photo is the median over the same photos in the same runtime with the threads that the server
gives one photo, in a loop with warm caches on the machine at rest: the best that the hardware does, and lower than what
a photo costs that arrives alone, 4 ms after the one before.

Beside the server stands what no server with as many workers could beat: the same photos' in-process times, drawn at
random, through a simulated queue that costs nothing (Poisson arrivals, first come first served), once with the times of
the loop and once with those after a rest. What lies between that and the bar is left for HTTP, threads and the load
generator; what lies between that and the server's figures is what they take.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import _serving, _serving_load, _serving_model
from benchmarks._serving import PEERS, Running
from benchmarks._serving_load import Load

P50_BAR, P99_BAR = 1.3, 3.0


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=20, help="of each measurement")
    arguments.add_argument("--connections", type=int, default=64, help="users of the open loop")
    arguments.add_argument("--load", type=float, default=0.5, help="part of the saturated rate")
    arguments.add_argument("--skip-peers", action="store_true")
    chosen = arguments.parse_args()
    _serving_load.wrk()
    result = measure(_serving_model.bundle(), chosen)
    print(json.dumps(result))
    return 0


def measure(bundle: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """Ours, then the peers, each at half of its own capacity."""
    with _serving.ours(bundle) as running:
        info = _serving.serve_info(running)
        capacity, alone, half = half_load(running, chosen)
    work = _serving.in_process(bundle, info)
    single = work["ms"]
    workers = int(info["processes"]) * int(info["workers"])
    ideal = {name: queue(work[f"{name}_ms"], half.rate, workers) for name in ("alone", "rested")}
    print(f"one photo in process: {single:.2f} ms ({info['runtime']}, {info['threads']} thread(s))")
    for name, (p50, p99) in ideal.items():
        what = f"a free server, photos {name}, at {half.rate:.1f}/s"
        print(f"{what}: p50 {p50:.2f}  p99 {p99:.2f} ms  ({p50 / single:.2f}x; {p99 / single:.2f}x)")
    show("ours", capacity, alone, half, single)
    peers, missing = {}, {}
    for candidate in () if chosen.skip_peers else PEERS:
        try:
            with _serving.peer(candidate, bundle) as running:
                capacity_there, alone_there, half_there = half_load(running, chosen)
            peers[candidate.name] = round(half_there.p50, 2)
            show(candidate.name, capacity_there, alone_there, half_there)
        except RuntimeError as reason:
            missing[candidate.name] = str(reason)
            print(f"{candidate.name:<22} {reason}", flush=True)
    return {
        "name": "serving-latency",
        "figure": round(half.p50, 2),
        "unit": "ms (p50 at half load)",
        "limit": round(single, 2),
        "peers": peers,
        "ratio": round(half.p50 / single, 3),
        "conditions": _serving.conditions(
            ratio=f"p50 over the in-process time of one photo, bar {P50_BAR}",
            p99_ms=round(half.p99, 2),
            p99_ratio=round(half.p99 / single, 3),
            p99_bar=P99_BAR,
            ideal={
                f"{name}_{p}_ratio": round(value / single, 3)
                for name, values in ideal.items()
                for p, value in zip(("p50", "p99"), values, strict=True)
            },
            p50_of_one_connection_ms=round(alone.p50, 2),
            per_second=round(half.rate, 1),
            saturated_per_second=round(capacity.rate, 1),
            errors=half.errors,
            not_measured=missing,
        ),
    }


def half_load(running: Running, chosen: argparse.Namespace) -> tuple[Load, Load, Load]:
    """Saturated, one connection in closed loop, and the open loop at the wanted part of the capacity."""
    with _serving_load.bodies(running.wire) as folder:
        _serving_load.load(running, folder, 16, 2)
        capacity = _serving_load.load(running, folder, 16, max(4.0, chosen.seconds / 3))
        alone = _serving_load.load(running, folder, 1, max(3.0, chosen.seconds / 4))
        wanted = capacity.rate * chosen.load
        half = _serving_load.load(running, folder, chosen.connections, chosen.seconds, wanted)
    return capacity, alone, half


def queue(times: Sequence[float], per_second: float, workers: int) -> tuple[float, float]:
    """p50 and p99 of the time from arrival to end in a queue with Poisson arrivals (M/G/c, simulated), in ms.

    :param times: of single photos, in ms; drawn from at random.
    """
    draw = random.Random(1)
    free = [0.0] * workers
    now, spent = 0.0, []
    for _ in range(200_000):
        now += draw.expovariate(per_second / 1000)
        end = max(now, free[0]) + draw.choice(times)
        heapq.heapreplace(free, end)
        spent.append(end - now)
    spent.sort()
    return spent[len(spent) // 2], spent[len(spent) * 99 // 100]


def show(name: str, capacity: Load, alone: Load, half: Load, single: float | None = None) -> None:
    """A line of the table."""
    line = f"{name:<22} saturated {capacity.rate:6.1f}/s  one connection p50 {alone.p50:6.2f} ms"
    line += f"  at {half.rate:6.1f}/s: p50 {half.p50:6.2f}  p90 {half.p90:6.2f}  p99 {half.p99:6.2f} ms"
    if single is not None:
        line += f"  ({half.p50 / single:.2f}x, bar {P50_BAR}x; {half.p99 / single:.2f}x, bar {P99_BAR}x)"
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
