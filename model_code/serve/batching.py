"""Photos in, answers out: a bounded queue and worker threads that batch only what is already waiting.

A worker that is free takes a photo at once, so nothing is added to the latency of a quiet server; under load
photos pile up while the workers are busy, and each takes its share of the pile as one batch. Decoding and the
network release the GIL, so one process keeps its cores busy from a single copy of the weights.

The standard library's queues wake one waiting thread after another until none finds work, and each of them
takes the GIL and a core from the one that did. Here a photo wakes exactly one worker: the last to become idle,
whose caches are the warmest. The way back is a pipe for the same reason: `call_soon_threadsafe` wakes the event
loop's thread while the worker still holds the GIL that it will ask for, `os.write` lets go of it first.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from model_code.serve.answers import Answer, Outcome
from model_code.serve.messages import busy
from model_code.serve.sessions import Floats

WINDOW = 32
"""Photos of one request that wait or run at a time: one of a thousand photos does not hold up the others."""


class Model(Protocol):
    """What the workers call; each method on several threads at once."""

    def prepare(self, photo: bytes) -> object:
        """Decode and transform one photo; raises for a photo that cannot be used."""

    def predict(self, prepared: Sequence[object]) -> Floats:
        """Calibrated probabilities [n, classes] of prepared photos."""

    def explain(self, prepared: object, target: str | None) -> Answer:
        """One photo's answer with its heat map."""


@dataclass(slots=True)
class Job:
    """The photos of one request on their way through the workers. Only the event loop's thread changes it."""

    photos: Sequence[bytes | Exception]
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


@dataclass(frozen=True)
class BatchDone:
    """What the observer is told: batch size, seconds its oldest photo waited, seconds of work."""

    size: int
    waited: float
    worked: float


class Batcher:
    """Worker threads over one queue."""

    def __init__(
        self,
        model: Model,
        loop: asyncio.AbstractEventLoop,
        workers: int,
        max_batch: int,
        capacity: int,
        observe: Callable[[BatchDone], None] = lambda _: None,
    ) -> None:
        self._model = model
        self._loop = loop
        self._workers = workers
        self._max_batch = max_batch
        self._capacity = capacity
        self._observe = observe
        self._pending: deque[_Item] = deque()
        self._idle: list[threading.Lock] = []
        """What idle workers sleep on, locked; releasing one wakes its worker."""
        self.outstanding = 0
        self._finished: deque[tuple[list[_Item], list[Outcome], BatchDone]] = deque()
        self._rung = False
        """Whether the bell has rung since the loop last looked at what is finished."""
        self._listening, self._bell = os.pipe()
        os.set_blocking(self._bell, False)
        loop.add_reader(self._listening, self._finish_all)
        self._begun = [math.inf] * workers
        """When each worker began its batch; infinite while it has none."""
        self._threads = [
            threading.Thread(target=self._work, args=(n,), name=f"worker-{n}", daemon=True)
            for n in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def working_since(self) -> float:
        """When the longest running batch was begun (`time.perf_counter`); now, where none is running."""
        return min(time.perf_counter(), *self._begun)

    def submit(self, job: Job) -> None:
        """Take a job on; `job.done` is called on the event loop's thread with an outcome per photo.

        Raises:
            HttpError: 503, the queue is full.
        """
        if self.outstanding >= self._capacity:
            raise busy("the queue is full")
        if not job.unfinished:
            self._loop.call_soon(job.done, job.outcomes)
        while self._feed(job) and job.next < WINDOW:
            pass

    def _feed(self, job: Job) -> bool:
        """Queue the next photo of a job that needs work; False when there is none."""
        while job.next < len(job.photos):
            index = job.next
            job.next += 1
            if job.outcomes[index] is _PENDING:
                self.outstanding += 1
                self._pending.append((job, index, time.perf_counter()))
                with contextlib.suppress(IndexError):  # none is idle, or the last one has just seen the photo
                    self._idle.pop().release()
                return True
        return False

    # -- worker threads ----------------------------------------------------------------------------------------------

    def _work(self, number: int) -> None:
        sleep = threading.Lock()
        sleep.acquire()
        while True:
            items = self._take(sleep)
            self._begun[number] = started = time.perf_counter()
            outcomes = self._run(items)
            self._begun[number] = math.inf
            report = BatchDone(len(items), started - items[0][2], time.perf_counter() - started)
            self._finished.append((items, outcomes, report))
            if not self._rung:
                self._rung = True
                os.write(self._bell, b"\0")

    def _take(self, sleep: threading.Lock) -> list[_Item]:
        """This worker's share of what is waiting, at least one photo."""
        while True:
            share = max(1, min(self._max_batch, 1 + (len(self._pending) - 1) // self._workers))
            items: list[_Item] = []
            try:
                while len(items) < share:
                    items.append(self._pending.popleft())
            except IndexError:  # the other workers were quicker
                pass
            if items:
                return items
            self._idle.append(sleep)
            if self._pending:
                # A photo came between the look and the sleep: whoever brought it may not have seen us idle.
                try:
                    self._idle.remove(sleep)
                    continue
                except ValueError:
                    pass  # it has: the lock is released, or about to be
            sleep.acquire()

    def _run(self, items: list[_Item]) -> list[Outcome]:
        outcomes: list[Outcome] = [_PENDING] * len(items)
        prepared, places = [], []
        for place, (job, index, _) in enumerate(items):
            photo = job.photos[index]
            assert isinstance(photo, bytes)
            try:
                if job.cancelled():
                    outcomes[place] = _CANCELLED
                elif job.explain:
                    outcomes[place] = self._model.explain(self._model.prepare(photo), job.target)
                else:
                    prepared.append(self._model.prepare(photo))
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
        return outcomes

    # -- event loop --------------------------------------------------------------------------------------------------

    def _finish_all(self) -> None:
        os.read(self._listening, self._workers)
        # Before looking: what is finished after the look rings again.
        self._rung = False
        while self._finished:
            self._finish(*self._finished.popleft())

    def _finish(self, items: list[_Item], outcomes: list[Outcome], report: BatchDone) -> None:
        self.outstanding -= len(items)
        for (job, index, _), outcome in zip(items, outcomes, strict=True):
            job.outcomes[index] = outcome
            job.unfinished -= 1
            if job.unfinished:
                self._feed(job)
                continue
            try:
                job.done(job.outcomes)
            except Exception as error:  # one request's trouble must not leave the others waiting
                self._loop.call_exception_handler({"message": "an answer failed", "exception": error})
        self._observe(report)
