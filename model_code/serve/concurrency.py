"""Choose processes, workers and threads for a model on this machine by a short measurement."""

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
"""Duration of one measurement in seconds."""
_BUDGET = 0.7
"""Seconds after which no further measurement starts: a quick start matters more than the last percent."""
_WORTH = 1.1
"""Factor in throughput that a bigger batch or more workers must gain to be worth their latency."""
_QUICKER = 1.2
"""Factor by which threads that share a batch must cut the latency of a single photo."""
_SERIAL_SHARE = 0.6
"""Share of one core that a process may spend under the GIL before requests queue for it."""
_QUEUE_SECONDS = 2.0
_QUEUE_LEAST = 64
_QUEUE_MOST = 2048


@dataclass(frozen=True)
class Arrangement:
    """Distribution of the work over processes and threads.

    Args:
        processes: Server processes.
        workers: Worker threads per process; each runs one batch at a time.
        threads: Threads of the runtime that share one batch.
        max_batch: Most photos of one batch.
        queue: Photos that may wait or run in one process.
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
    """Measurements of one way to use the cores.

    Args:
        rates: Photos per second by batch size.
        latency: Seconds of one photo alone.
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
        """Return the smallest batch size that comes close to this way's best throughput."""
        return min(size for size, rate in self.rates.items() if rate * _WORTH >= self.rate)


def choose(ways: Sequence[Measured], serial_seconds: float, cores: int, settings: Settings) -> Arrangement:
    """Choose the arrangement from measurements; explicit settings take precedence.

    The first way wins unless another has clearly more throughput, or about as much with a clearly lower latency
    of a single photo. Several processes are used where one would spend too much time under the GIL.

    Args:
        ways: The measurements, the default way first.
        cores: Cores of this machine to use.
        settings: Values given explicitly.
        serial_seconds: Time per photo that only one thread of a process can spend at a time.
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
    """Return the arrangement, if the settings leave nothing to measure."""
    chosen = (settings.processes, settings.workers, settings.threads, settings.max_batch)
    if any(value is None for value in chosen):
        return None
    processes, workers, threads, max_batch = (int(value or 1) for value in chosen)
    return Arrangement(processes, workers, threads, max_batch, settings.queue or 8 * _QUEUE_LEAST)


def measure(ways: Sequence[tuple[int, int, Callable[[int], Callable[[], object]]]]) -> list[Measured]:
    """Time each way to use the cores.

    Args:
        ways: Workers, threads, and a function that for a batch size gives a call answering one such batch.
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
    """Return photos per second of `workers` threads that repeat `call` for one slice of time."""
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
