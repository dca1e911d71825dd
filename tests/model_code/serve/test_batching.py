"""Worker threads over one queue: every photo once, no worker left asleep, no batch larger than allowed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from model_code.serve.answers import Answer, Outcome
from model_code.serve.batching import BatchDone, Batcher, Job
from model_code.serve.messages import HttpError
from model_code.serve.sessions import Floats

DEADLINE = 30.0


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
        raise AssertionError("nobody asked for it")


async def answers(batcher: Batcher, photos: Sequence[bytes]) -> list[Outcome]:
    """What `batcher` says of one request."""
    future: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
    batcher.submit(Job(photos, future.set_result))
    return await asyncio.wait_for(future, DEADLINE)


def numbers(outcomes: Sequence[Outcome]) -> list[int]:
    return [int(outcome.probabilities[0]) for outcome in outcomes if isinstance(outcome, Answer)]


def test_every_photo_is_answered_once_and_no_worker_sleeps_through_one() -> None:
    async def main() -> list[BatchDone]:
        reports: list[BatchDone] = []
        batcher = Batcher(Echo(), asyncio.get_running_loop(), 4, 8, 10_000, reports.append)
        # One after another: each meets workers on their way to sleep.
        for n in range(2000):
            assert numbers(await answers(batcher, [b"%d" % n])) == [n]
        requests = [[b"%d" % (10 * n + k) for k in range(n % 5 + 1)] for n in range(500)]
        for request, outcomes in zip(
            requests, await asyncio.gather(*(answers(batcher, request) for request in requests)), strict=True
        ):
            assert numbers(outcomes) == [int(photo) for photo in request]
        assert batcher.outstanding == 0
        assert sum(report.size for report in reports) == 2000 + sum(map(len, requests))
        return reports

    assert max(report.size for report in asyncio.run(main())) <= 8


def test_waiting_photos_are_shared_between_the_workers() -> None:
    async def main() -> None:
        model, reports = Echo(), []
        model.gate.clear()
        batcher = Batcher(model, asyncio.get_running_loop(), 2, 16, 100, reports.append)
        busy = [asyncio.ensure_future(answers(batcher, [b"1"])) for _ in range(2)]
        await asyncio.sleep(0)
        while batcher._pending:
            await asyncio.sleep(0.001)
        waiting = [asyncio.ensure_future(answers(batcher, [b"2"])) for _ in range(8)]
        await asyncio.sleep(0)
        model.gate.set()
        await asyncio.gather(*busy, *waiting)
        sizes = [report.size for report in reports]
        assert sorted(sizes)[:2] == [1, 1]
        assert sum(sizes) == 10
        assert max(sizes) <= 4

    asyncio.run(main())


def test_an_answer_that_fails_leaves_no_other_waiting() -> None:
    async def main() -> None:
        troubles: list[BaseException] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: troubles.append(context["exception"]))
        model = Echo()
        model.gate.clear()
        batcher = Batcher(model, loop, 1, 8, 100)
        batcher.submit(Job([b"0"], lambda _: None))
        while batcher._pending:
            await asyncio.sleep(0.001)

        def fail(_: list[Outcome]) -> None:
            raise ValueError("no answer")

        batcher.submit(Job([b"1"], fail))
        held = asyncio.ensure_future(answers(batcher, [b"2"]))
        await asyncio.sleep(0)
        model.gate.set()
        assert numbers(await held) == [2]
        assert [str(trouble) for trouble in troubles] == ["no answer"]

    asyncio.run(main())


def test_a_bad_photo_spoils_itself_only_and_a_full_queue_says_so() -> None:
    async def main() -> None:
        model = Echo()
        batcher = Batcher(model, asyncio.get_running_loop(), 1, 8, 2)
        outcomes = await answers(batcher, [b"1", b"bad", b"3"])
        assert numbers(outcomes) == [1, 3]
        assert isinstance(outcomes[1], ValueError)
        model.gate.clear()
        held = asyncio.ensure_future(answers(batcher, [b"4", b"5"]))
        await asyncio.sleep(0)
        with pytest.raises(HttpError, match="queue is full"):
            batcher.submit(Job([b"6"], lambda _: None))
        model.gate.set()
        assert numbers(await held) == [4, 5]

    asyncio.run(main())
