"""Choosing processes, workers and threads from measurements."""

from __future__ import annotations

from pathlib import Path

from model_code.serve.concurrency import Measured, choose, fixed, measure
from model_code.serve.settings import Settings

ANY = Settings(Path("model"))
NARROW = Measured(4, 1, {1: 400.0, 4: 404.0, 16: 380.0}, 0.010)


def test_the_smallest_batch_that_comes_close_to_the_best_rate() -> None:
    assert NARROW.best_batch() == 1
    assert Measured(1, 1, {1: 100.0, 4: 200.0, 16: 205.0}, 0.01).best_batch() == 4


def test_workers_of_one_thread_unless_sharing_is_clearly_quicker() -> None:
    slow_to_share = Measured(1, 4, {1: 398.0}, 0.009)
    assert choose([NARROW, slow_to_share], 0, 4, ANY).workers == 4
    quick = Measured(1, 4, {1: 390.0}, 0.003)
    assert choose([NARROW, quick], 0, 4, ANY).threads == 4
    quick_but_weak = Measured(1, 4, {1: 300.0}, 0.003)
    assert choose([NARROW, quick_but_weak], 0, 4, ANY).threads == 1


def test_more_processes_when_one_would_spend_its_time_under_the_gil() -> None:
    assert choose([NARROW], 0.0002, 4, ANY).processes == 1
    many = Measured(16, 1, {1: 4000.0}, 0.004)
    made = choose([many], 0.0002, 16, ANY)
    assert (made.processes, made.workers) == (2, 8)
    assert choose([many], 1.0, 16, ANY).processes == 16


def test_given_settings_win() -> None:
    settings = Settings(Path("model"), processes=3, workers=2, threads=5, max_batch=7, queue=11)
    made = choose([NARROW], 0, 4, settings)
    assert (made.processes, made.workers, made.threads, made.max_batch, made.queue) == (3, 2, 5, 7, 11)
    assert fixed(settings) == made
    assert fixed(ANY) is None


def test_the_queue_holds_two_seconds_of_work() -> None:
    assert choose([NARROW], 0, 4, ANY).queue == 808
    assert choose([Measured(1, 1, {1: 1.0}, 1.0)], 0, 1, ANY).queue == 64


def test_measuring_calls_every_way_and_stays_within_its_budget() -> None:
    calls: list[tuple[str, int]] = []

    def way(name: str):  # type: ignore[no-untyped-def]
        def prepare(size: int):  # type: ignore[no-untyped-def]
            return lambda: calls.append((name, size))

        return prepare

    measured = measure([(2, 1, way("narrow")), (1, 2, way("wide"))])
    assert (measured[0].workers, measured[0].threads) == (2, 1)
    assert ("narrow", 1) in calls
    assert measured[0].rates[1] > 0
