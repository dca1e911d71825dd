"""A bounded queue of photos, processed in batches as soon as a thread is free.

A photo that finds a free thread starts at once, so batching adds no latency on a quiet server; under load, photos
queue while the threads are busy, and each thread takes a share of the queue as one batch. Decoding and the network
release the GIL, so one process keeps its cores busy from a single copy of the weights.

Everything but `Batcher.run` is called under the reactor's lock.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from model_code.predict.sessions import Floats
from model_code.serve.answers import Answer, Outcome
from model_code.serve.http.messages import busy
from model_code.serve.payload import Encoded, Photo

_ROUNDS = 3
"""Batches per worker that the waiting photos are split into. In a batch the first photo waits for the last, so only
photos that would wait for more than a few rounds gain by it: with 1, mobilenet_v2's p99 at half load is a tenth higher
than with 2, and with 2 simulated to be 2 % higher than with 3. A saturated server gets the same batches.
"""

WINDOW = 32
"""Photos of one request that wait or run at a time, so that a request of a thousand photos does not block others."""


class Model(Protocol):
    """Called by the worker threads, by several at once."""

    def prepare(self, photo: bytes) -> object:
        """Decode and transform one photo; raises for a photo that cannot be used."""

    def predict(self, prepared: Sequence[object]) -> Floats:
        """Calibrated probabilities [n, classes] of prepared photos."""

    def explain(self, prepared: object, target: str | None) -> Answer:
        """Return one photo's answer with its heat map."""


@dataclass(slots=True)
class Job:
    """The photos of one request in the queue."""

    photos: Sequence[Photo]
    done: Callable[[list[Outcome]], None]
    explain: bool = False
    target: str | None = None
    cancelled: Callable[[], bool] = lambda: False
    outcomes: list[Outcome] = None  # type: ignore[assignment]
    next: int = 0
    unfinished: int = 0

    def __post_init__(self) -> None:
        self.outcomes = [photo if isinstance(photo, Exception) else _PENDING for photo in self.photos]
        self.unfinished = sum(outcome is _PENDING for outcome in self.outcomes)


_PENDING = RuntimeError("not answered yet")
_CANCELLED = RuntimeError("the client is gone")

_Item = tuple[Job, int, float]


@dataclass(slots=True, eq=False)
class Batch:
    """Photos that are processed together.

    Args:
        started: Start of the work (`time.perf_counter`).
        worked: Duration of the work in seconds, once finished.
    """

    items: list[_Item]
    started: float
    outcomes: list[Outcome]
    worked: float = 0.0

    @property
    def waited(self) -> float:
        """Seconds that the oldest photo waited."""
        return self.started - self.items[0][2]


class Batcher:
    """The queue, as `reactor.Work`."""

    def __init__(
        self,
        model: Model,
        workers: int,
        max_batch: int,
        capacity: int,
        observe: Callable[[Batch], None] = lambda _: None,
        trouble: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        """Create the queue.

        Args:
            model: Decodes and answers.
            workers: Batches that run at a time.
            max_batch: Most photos of one batch.
            capacity: Photos that may wait or run.
            observe: Called with every finished batch.
            trouble: Called with exceptions of `Job.done`.
        """
        self._model = model
        self._workers = workers
        self._max_batch = max_batch
        self._capacity = capacity
        self._observe = observe
        self._trouble = trouble
        self._pending: deque[_Item] = deque()
        self._running: list[Batch] = []
        self.outstanding = 0

    def working_since(self) -> float:
        """Start of the longest running batch (`time.perf_counter`); now, if none is running."""
        return min((batch.started for batch in self._running), default=time.perf_counter())

    def submit(self, job: Job) -> None:
        """Queue a job; `job.done` is called with an outcome per photo.

        Raises:
            HttpError: 503, the queue is full.
        """
        if self.outstanding >= self._capacity:
            raise busy("the queue is full")
        if not job.unfinished:
            job.done(job.outcomes)
        while self._feed(job) and job.next < WINDOW:
            pass

    def _feed(self, job: Job) -> bool:
        """Queue the next pending photo of a job; False if there is none."""
        while job.next < len(job.photos):
            index = job.next
            job.next += 1
            if job.outcomes[index] is _PENDING:
                self.outstanding += 1
                self._pending.append((job, index, time.perf_counter()))
                return True
        return False

    # -- reactor.Work ------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        """True if there are photos that may start now."""
        return bool(self._pending) and self.room

    @property
    def room(self) -> bool:
        """True if a new photo could start at once."""
        return len(self._running) < self._workers

    def take(self) -> Batch:
        """Return one batch of what is waiting."""
        share = min(self._max_batch, math.ceil(len(self._pending) / (_ROUNDS * self._workers)))
        items = [self._pending.popleft() for _ in range(share)]
        batch = Batch(items, time.perf_counter(), [_PENDING] * share)
        self._running.append(batch)
        return batch

    def run(self, batch: Batch) -> None:
        """Fill in the outcomes."""
        outcomes = batch.outcomes
        prepared, places = [], []
        for place, (job, index, _) in enumerate(batch.items):
            photo = job.photos[index]
            assert not isinstance(photo, Exception)
            try:
                if job.cancelled():
                    outcomes[place] = _CANCELLED
                    continue
                pixels = self._model.prepare(photo.decode() if isinstance(photo, Encoded) else photo)
                if job.explain:
                    outcomes[place] = self._model.explain(pixels, job.target)
                else:
                    prepared.append(pixels)
                    places.append(place)
            except Exception as error:
                outcomes[place] = error
        if prepared:
            try:
                for place, row in zip(places, self._model.predict(prepared), strict=True):
                    outcomes[place] = Answer.of(row)
            except Exception as error:
                for place in places:
                    outcomes[place] = error
        batch.worked = time.perf_counter() - batch.started

    def finish(self, batch: Batch) -> None:
        """Answer the requests that are now complete."""
        self._running.remove(batch)
        self.outstanding -= len(batch.items)
        for (job, index, _), outcome in zip(batch.items, batch.outcomes, strict=True):
            job.outcomes[index] = outcome
            job.unfinished -= 1
            if job.unfinished:
                self._feed(job)
                continue
            try:
                job.done(job.outcomes)
            except Exception as error:  # a failure of one request must not leave the others waiting
                self._trouble(error)
        self._observe(batch)
