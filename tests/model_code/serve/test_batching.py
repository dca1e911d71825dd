"""One queue and threads that take turns: every photo once, none left waiting, no batch larger than allowed."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress

import numpy as np
import pytest

from model_code.predict.sessions import Floats
from model_code.serve.answers import Answer, Outcome
from model_code.serve.batching import Batch, Batcher, Job
from model_code.serve.http import reactor
from model_code.serve.http.messages import HttpError
from model_code.serve.http.poller import READ, Poller, SelectorPoller, best_poller
from model_code.serve.http.reactor import Reactor
from tests.model_code.serve.running import wait_for

DEADLINE = 30.0
POLLERS = pytest.mark.parametrize("poller", [best_poller, SelectorPoller])


class Echo:
    """Answers with the photo's own number; holds its workers while `gate` is closed."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()

    def prepare(self, photo: bytes) -> object:
        if photo == b"bad":
            raise ValueError("bad photo")
        return int(photo)

    def predict(self, prepared: Sequence[object]) -> Floats:
        assert self.gate.wait(DEADLINE)
        return np.array(prepared, np.float32)[:, None]

    def explain(self, prepared: object, target: str | None) -> Answer:
        raise AssertionError("must not be called")


class Crew:
    """A batcher and the threads that work for it."""

    def __init__(
        self, model: Echo, workers: int, max_batch: int, capacity: int, poller: Poller | None = None
    ) -> None:
        self.batches: list[Batch] = []
        self.troubles: list[Exception] = []
        self.batcher = Batcher(model, workers, max_batch, capacity, self.batches.append, self.troubles.append)
        self._reactor = Reactor(self.troubles.append, poller)
        self._calls: deque[Callable[[], None]] = deque()
        reading, self.bell = os.pipe()

        os.set_blocking(reading, False)

        def ring(_: int) -> None:
            with suppress(BlockingIOError):  # another thread that listens has been here before
                os.read(reading, 1)
                self._calls.popleft()()

        self._reactor.watch(reading, READ, ring)
        self._reactor.start(self.batcher, workers, 3600, lambda: None)

    def call(self, action: Callable[[], None]) -> None:
        """Do something on the thread that listens, as the network would."""
        done: Future[None] = Future()

        def settle() -> None:
            try:
                done.set_result(action())
            except Exception as error:
                done.set_exception(error)

        self._calls.append(settle)
        os.write(self.bell, b"!")
        done.result(DEADLINE)

    def submit(self, *photos: bytes) -> Future[list[Outcome]]:
        """One request."""
        answers: Future[list[Outcome]] = Future()
        self.call(lambda: self.batcher.submit(Job(photos, answers.set_result)))
        return answers

    def working(self) -> int:
        """Photos that are being worked on."""
        return self.batcher.outstanding - len(self.batcher._pending)


def numbers(answers: Future[list[Outcome]]) -> list[int]:
    outcomes = answers.result(DEADLINE)
    return [int(outcome.probabilities[0]) for outcome in outcomes if isinstance(outcome, Answer)]


@contextmanager
def closed(gate: threading.Event) -> Iterator[None]:
    gate.clear()
    yield
    gate.set()


@POLLERS
def test_every_photo_is_answered_once_and_no_worker_sleeps_through_one(poller: Callable[[], Poller]) -> None:
    crew = Crew(Echo(), 4, 8, 10_000, poller())
    # One after another: each meets threads on their way to sleep.
    for n in range(2000):
        assert numbers(crew.submit(b"%d" % n)) == [n]
    requests = [[b"%d" % (10 * n + k) for k in range(n % 5 + 1)] for n in range(500)]
    answers = [crew.submit(*request) for request in requests]
    for request, answer in zip(requests, answers, strict=True):
        assert numbers(answer) == [int(photo) for photo in request]
    wait_for(lambda: sum(len(batch.items) for batch in crew.batches) == 2000 + sum(map(len, requests)), "all")
    assert crew.batcher.outstanding == 0
    assert max(len(batch.items) for batch in crew.batches) <= 8
    assert not crew.troubles


@POLLERS
def test_one_worker_listens_while_all_workers_work(poller: Callable[[], Poller]) -> None:
    model = Echo()
    crew = Crew(model, 2, 1, 100, poller())
    with closed(model.gate):
        busy = [crew.submit(b"1") for _ in range(2)]
        wait_for(lambda: crew.working() == 2, "both workers to work")
        waiting = crew.submit(b"2")
        assert crew.working() == 2
    assert [numbers(answer) for answer in (*busy, waiting)] == [[1], [1], [2]]


@POLLERS
def test_all_workers_work_on_one_request_of_many_photos(poller: Callable[[], Poller]) -> None:
    model = Echo()
    crew = Crew(model, 3, 1, 100, poller())
    with closed(model.gate):
        answer = crew.submit(*(b"%d" % n for n in range(10)))
        wait_for(lambda: crew.working() == 3, "all workers to work")
    assert numbers(answer) == list(range(10))


def test_waiting_photos_are_shared_between_the_workers() -> None:
    model = Echo()
    crew = Crew(model, 2, 16, 100)
    with closed(model.gate):
        busy = [crew.submit(b"1") for _ in range(2)]
        wait_for(lambda: crew.working() == 2, "both workers to work")
        waiting = [crew.submit(b"2") for _ in range(8)]
    for answer in (*busy, *waiting):
        numbers(answer)
    wait_for(lambda: sum(len(batch.items) for batch in crew.batches) == 10, "all to be accounted for")
    sizes = sorted(len(batch.items) for batch in crew.batches)
    assert sizes[:2] == [1, 1]
    assert sizes[-1] <= 4


def test_an_answer_that_fails_leaves_no_other_waiting() -> None:
    model = Echo()
    crew = Crew(model, 1, 8, 100)

    def fail(_: list[Outcome]) -> None:
        raise ValueError("no answer")

    with closed(model.gate):
        crew.submit(b"0")
        wait_for(lambda: crew.working() == 1, "the worker to work")
        crew.call(lambda: crew.batcher.submit(Job([b"1"], fail)))
        held = crew.submit(b"2")
    assert numbers(held) == [2]
    assert [str(trouble) for trouble in crew.troubles] == ["no answer"]


def test_a_bad_photo_spoils_itself_only_and_a_full_queue_says_so() -> None:
    model = Echo()
    crew = Crew(model, 1, 8, 2)
    answers = crew.submit(b"1", b"bad", b"3")
    assert numbers(answers) == [1, 3]
    assert isinstance(answers.result()[1], ValueError)
    with closed(model.gate):
        held = crew.submit(b"4", b"5")
        with pytest.raises(HttpError, match="queue is full"):
            crew.submit(b"6")
    assert numbers(held) == [4, 5]


def test_a_server_that_is_in_use_is_looked_at_often(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Reactor(lambda _: None)
    naps: list[float] = []

    class End(Exception):
        pass

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) < 5:
            watched._heard += 0.001  # another worker has listened meanwhile
        if len(naps) == 7:
            raise End

    monkeypatch.setattr("model_code.serve.http.reactor.time.sleep", nap)
    with pytest.raises(End):
        watched._ensure_listening()
    assert naps == [reactor._QUIET, *[reactor._PATIENCE] * 4, *[reactor._QUIET] * 2]
