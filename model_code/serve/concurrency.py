"""How many processes, workers and threads serve a model best here: a short measurement, then arithmetic."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from model_code.serve.settings import MOST_PROCESSES, Settings

_BATCHES = (1, 4, 16)
_SLICE = 0.1
"""Seconds of one measurement."""
_BUDGET = 0.7
"""Seconds after which no further measurement is begun: starting in time matters more than the last percent."""
_WORTH = 1.1
"""A bigger batch or more workers must bring this much throughput to be worth their latency."""
_QUICKER = 1.2
"""Threads that share a batch must cut the latency of a single photo by this factor to be worth their while."""
_SERIAL_SHARE = 0.6
"""Share of one core that a process may spend under the GIL before requests queue for it."""
_QUEUE_SECONDS = 2.0
_QUEUE_LEAST = 64
_QUEUE_MOST = 2048


@dataclass(frozen=True)
class Arrangement:
    """How the work is spread.

    :param processes: server processes.
    :param workers: worker threads per process; each runs one batch at a time.
    :param threads: threads of the runtime that share one batch.
    :param max_batch: most photos of one batch.
    :param queue: photos that may wait or run in one process.
    """

    processes: int
    workers: int
    threads: int
    max_batch: int
    queue: int

    def to_json(self) -> dict[str, Any]:
        """For the pipe between the processes."""
        return asdict(self)


@dataclass(frozen=True)
class Measured:
    """One way to use the cores.

    :param rates: photos per second by batch size.
    :param latency: seconds of one photo alone.
    """

    workers: int
    threads: int
    rates: dict[int, float]
    latency: float

    @property
    def rate(self) -> float:
        """Photos per second with the best batch size."""
        return max(self.rates.values())

    def best_batch(self) -> int:
        """The smallest batch size that comes close to this way's best throughput."""
        return min(size for size, rate in self.rates.items() if rate * _WORTH >= self.rate)


def choose(ways: Sequence[Measured], serial_seconds: float, cores: int, settings: Settings) -> Arrangement:
    """The arrangement for what was measured; settings that are given win.

    The first way, unless another has clearly more throughput, or about as much and a clearly lower latency of
    a single photo. More than one process where a single one would spend too much time under the GIL.

    :param serial_seconds: time per photo that only one thread of a process can spend at a time.
    """
    best = max(way.rate for way in ways)
    close = [way for way in ways if way.rate * _WORTH >= best]
    quickest = min(close, key=lambda candidate: candidate.latency)
    way = close[0] if close[0].latency < quickest.latency * _QUICKER else quickest
    rate = way.rate
    needed = math.ceil(rate * serial_seconds / _SERIAL_SHARE)
    processes = settings.processes or max(1, min(needed, cores, MOST_PROCESSES))
    threads = settings.threads or max(1, way.threads // processes)
    workers = settings.workers or max(1, way.workers // processes)
    queue = settings.queue or min(_QUEUE_MOST, max(_QUEUE_LEAST, int(rate * _QUEUE_SECONDS / processes)))
    return Arrangement(processes, workers, threads, settings.max_batch or way.best_batch(), queue)


def fixed(settings: Settings) -> Arrangement | None:
    """The arrangement when the settings leave nothing to measure."""
    chosen = (settings.processes, settings.workers, settings.threads, settings.max_batch)
    if any(value is None for value in chosen):
        return None
    processes, workers, threads, max_batch = (int(value or 1) for value in chosen)
    return Arrangement(processes, workers, threads, max_batch, settings.queue or 8 * _QUEUE_LEAST)


def measure(ways: Sequence[tuple[int, int, Callable[[int], Callable[[], object]]]]) -> list[Measured]:
    """Time each way to use the cores.

    :param ways: workers, threads, and a function that for a batch size gives a call answering one such batch.
        At least the first way is measured, at least with batches of one.
    """
    measured: list[Measured] = []
    begun = time.perf_counter()
    for workers, threads, prepare in ways:
        if measured and time.perf_counter() - begun > _BUDGET:
            break
        rates: dict[int, float] = {}
        alone = prepare(1)
        alone()
        latency = min(_seconds(alone) for _ in range(3))
        for size in _BATCHES:
            spent = time.perf_counter() - begun
            if rates and (spent > _BUDGET or size * latency > _BUDGET / 2):
                break
            rates[size] = _throughput(prepare(size), size, workers)
        measured.append(Measured(workers, threads, rates, latency))
    return measured


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _throughput(call: Callable[[], object], size: int, workers: int) -> float:
    """Photos per second of `workers` threads that repeat `call` for one slice of time."""
    counts = [0] * workers
    until = time.perf_counter() + _SLICE

    def repeat(worker: int) -> None:
        while True:
            call()
            counts[worker] += 1
            if time.perf_counter() >= until:
                return

    threads = [threading.Thread(target=repeat, args=(worker,)) for worker in range(workers)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) * size / (time.perf_counter() - started)
