"""`serving-latency`: response time at half of the server's capacity, against the same work without a server.

Open loop: Poisson arrivals (64 users with exponential think times, in a wrk process of its own on the same cores) at
half of the rate that the server reached when saturated a moment before. Every latency is from the first byte sent to
the last byte received.

The in-process time of one photo is the median over the same photos in the same runtime with the threads that the server
gives one photo, in a loop with warm caches on the machine at rest: the best that the hardware does.

A shared machine changes its speed by half within seconds. So all this is done in short rounds, in each of them the
in-process time is measured before and after the load, and what is reported is the mean over all rounds of the one
divided by the mean of the other: both have seen the same share of fast and slow seconds.

The bound that no server with as many workers could beat: the round's in-process times, drawn at random,
through a simulated queue that costs nothing (Poisson arrivals, first come first served). Cores that share caches,
memory or, as hyperthreads, their very units slow each other down; by how much is measured, too, as the rate of all
workers at once without a server. The gap between the simulation and the bar is the budget of HTTP, threads and the load
generator; the gap between it and the server's figures is what they use.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import _serving, _serving_load, _serving_model
from benchmarks._serving import PEERS, InProcess, Running
from benchmarks._serving_load import Load

P50_BAR, P99_BAR = 1.3, 3.0
_SIMULATED = 50_000
"""Photos through the simulated queue."""


@dataclass(frozen=True)
class Round:
    """One round; times in milliseconds.

    Attributes:
        before, after: In-process times of single photos, before and after the load.
        together: Times of one photo while all workers work.
    """

    capacity: Load
    half: Load
    before: list[float]
    after: list[float]
    together: float

    @property
    def single(self) -> float:
        """In-process time of one photo."""
        return statistics.mean((statistics.median(self.before), statistics.median(self.after)))


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=12)
    arguments.add_argument("--seconds", type=float, default=4, help="of the load in each round")
    arguments.add_argument("--connections", type=int, default=64, help="users of the open loop")
    arguments.add_argument("--load", type=float, default=0.5, help="part of the saturated rate")
    arguments.add_argument("--skip-peers", action="store_true")
    chosen = arguments.parse_args()
    _serving_load.wrk()
    result = measure(_serving_model.bundle(), chosen)
    print(json.dumps(result))
    return 0


def measure(bundle: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """Ours in rounds, then the peers, each at half of its own capacity."""
    with _serving.ours(bundle) as running:
        info = _serving.serve_info(running)
        with InProcess(bundle, info) as process:
            workers = int(info["processes"]) * int(info["workers"])
            rounds, alone = run_rounds(running, process, workers, chosen)
    single = statistics.mean(r.single for r in rounds)
    together = statistics.mean(r.together for r in rounds)
    # One factor for all rounds: a round's own, from two moments of a machine that changes its speed, is mostly noise.
    free = [queue(r.before + r.after, r.half.rate, workers, max(1.0, together / single)) for r in rounds]
    times = {
        "p50": statistics.mean(r.half.p50 for r in rounds),
        "p99": statistics.mean(r.half.p99 for r in rounds),
        "free_p50": statistics.mean(p50 for p50, _ in free),
        "free_p99": statistics.mean(p99 for _, p99 in free),
        "together": together,
    }
    ratios = {name: value / single for name, value in times.items()}
    print(f"one photo in process: {single:.2f} ms ({info['runtime']}, {info['threads']} thread(s))")
    print(f"the same while all workers work: {ratios['together']:.2f}x")
    print(f"a server that costs nothing: p50 {ratios['free_p50']:.2f}x  p99 {ratios['free_p99']:.2f}x")
    print(
        f"ours, mean of {len(rounds)} rounds: p50 {ratios['p50']:.2f}x (bar {P50_BAR}x)  "
        f"p99 {ratios['p99']:.2f}x (bar {P99_BAR}x)",
        flush=True,
    )
    peers, missing = ({}, {}) if chosen.skip_peers else measure_peers(bundle, chosen)
    return {
        "name": "serving-latency",
        "figure": round(times["p50"], 2),
        "unit": "ms (p50 at half load)",
        "limit": round(single, 2),
        "peers": peers,
        "ratio": round(ratios["p50"], 3),
        "conditions": _serving.conditions(
            ratio=f"p50 over the in-process time of one photo, bar {P50_BAR}",
            p99_ms=round(times["p99"], 2),
            p99_bar=P99_BAR,
            ratios={name: round(value, 3) for name, value in ratios.items()},
            rounds=[[round(r.single, 2), round(r.half.p50, 2), round(r.half.p99, 2)] for r in rounds],
            p50_of_one_connection_ms=round(alone.p50, 2),
            per_second=round(statistics.mean(r.half.rate for r in rounds), 1),
            saturated_per_second=round(statistics.mean(r.capacity.rate for r in rounds), 1),
            errors=sum(r.half.errors for r in rounds),
            not_measured=missing,
        ),
    }


def run_rounds(
    running: Running, process: InProcess, workers: int, chosen: argparse.Namespace
) -> tuple[list[Round], Load]:
    """The rounds, and one connection in closed loop."""
    rounds = []
    with _serving_load.bodies(running.wire) as folder:
        alone = _serving_load.load(running, folder, 1, 3)
        for number in range(chosen.rounds):
            capacity = _serving_load.load(running, folder, 16, 2)
            before = process.alone()
            half = _serving_load.load(
                running, folder, chosen.connections, chosen.seconds, capacity.rate * chosen.load
            )
            after = process.alone()
            together = 1000 * workers / process.busy()["per_second"]
            rounds.append(Round(capacity, half, before, after, together))
            show(f"ours, round {number + 1}", capacity, half, rounds[-1].single)
    return rounds, alone


def measure_peers(bundle: Path, chosen: argparse.Namespace) -> tuple[dict[str, float], dict[str, str]]:
    """p50 of the peers at half of their capacity, and why others have none."""
    peers, missing = {}, {}
    for candidate in PEERS:
        try:
            with _serving.peer(candidate, bundle) as running, _serving_load.bodies(running.wire) as folder:
                _serving_load.load(running, folder, 16, 2)
                capacity = _serving_load.load(running, folder, 16, 4)
                wanted = capacity.rate * chosen.load
                half = _serving_load.load(running, folder, chosen.connections, 4 * chosen.seconds, wanted)
            peers[candidate.name] = round(half.p50, 2)
            show(candidate.name, capacity, half)
        except RuntimeError as reason:
            missing[candidate.name] = str(reason)
            print(f"{candidate.name:<22} {reason}", flush=True)
    return peers, missing


def queue(times: Sequence[float], per_second: float, workers: int, slower: float) -> tuple[float, float]:
    """Simulate a queue with Poisson arrivals (M/G/c); return p50 and p99 from arrival to end, in ms.

    Args:
        times: Times of single photos, in ms; drawn from at random.
        per_second: Rate of arrivals.
        workers: Photos that are worked on at once.
        slower: Factor on a photo's time while all workers work; in between it rises linearly.
    """
    draw = random.Random(1)
    arrives = draw.expovariate(per_second / 1000)
    now, spent = 0.0, []
    waiting: deque[float] = deque()
    working: list[tuple[float, float]] = []  # work left, arrival
    while len(spent) < _SIMULATED:
        pace = 1 + (slower - 1) * max(0, len(working) - 1) / max(1, workers - 1)
        ends = min(working)[0] * pace if working else float("inf")
        passed = min(ends, arrives - now)
        working = [(left - passed / pace, arrival) for left, arrival in working]
        now += passed
        if ends <= passed:
            finished = min(working)
            working.remove(finished)
            spent.append(now - finished[1])
        else:
            waiting.append(now)
            arrives = now + draw.expovariate(per_second / 1000)
        if waiting and len(working) < workers:
            working.append((draw.choice(times), waiting.popleft()))
    spent.sort()
    return spent[len(spent) // 2], spent[len(spent) * 99 // 100]


def show(name: str, capacity: Load, half: Load, single: float | None = None) -> None:
    """A line of the table."""
    line = f"{name:<20} saturated {capacity.rate:6.1f}/s  at {half.rate:6.1f}/s:"
    line += f" p50 {half.p50:6.2f}  p90 {half.p90:6.2f}  p99 {half.p99:6.2f} ms"
    if single is not None:
        line += f"  ({half.p50 / single:.2f}x, {half.p99 / single:.2f}x of {single:.2f} ms)"
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
