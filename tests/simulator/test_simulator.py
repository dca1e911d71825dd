"""Faults, crashes and users in any order: paid work happens once, ends, and endpoints end well.

A failure replays from its seed: `pytest tests/simulator -k "schedule and 17"`, or SIMULATOR_SEED=17 for one of the
random ones.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ml_pipeline.operators.deploy import DeployEndpointOperator
from ml_pipeline.requests import names
from ml_pipeline.requests.types import Deployed
from ml_pipeline.settings import Settings
from ml_pipeline.triggers.base import Event
from tests.simulator.simulation import simulate

if TYPE_CHECKING:
    from airflow.sdk import Context

FIXED = range(40)
RANDOM = int(os.environ.get("SIMULATOR_SCHEDULES", "2000"))


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_AWS_URL", raising=False)
    monkeypatch.setenv("ML_PIPELINE_BUCKET", "bucket")
    monkeypatch.setenv("ML_PIPELINE_ROLE_ARN", "arn:aws:iam::1:role/r")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("ML_PIPELINE_INSTANCE_IMAGE", "ami-12345678")
    monkeypatch.setenv("ML_PIPELINE_POLL_SECONDS", "300")


def check(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = random.Random(seed).choice([0.0, 0.1, 0.3])
    with monkeypatch.context() as patch:
        outcome = simulate(seed, faults, patch)
    assert not outcome.broken, "\n".join([f"seed {seed}", *outcome.broken, "", *outcome.journal])


@pytest.mark.parametrize("seed", FIXED)
def test_a_schedule_keeps_the_invariants(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    check(seed, monkeypatch)


def _no_lock(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("ml_pipeline.deployment.locks.acquire", lambda *_: None)


def _no_teardown(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("ml_pipeline.deployment.leftovers.stop_jobs", lambda *_: [])
    patch.setattr("ml_pipeline.triggers.base.PollingTrigger.on_kill", _nothing)


async def _nothing(self: object) -> None:
    return None


def _forgets_its_jobs(patch: pytest.MonkeyPatch) -> None:
    counter = itertools.count(1)
    original = names.job_name
    patch.setattr(
        names, "job_name", lambda kind, origin, *more: original(kind, origin, *more) + f"-{next(counter)}"
    )


def _trusts_a_rollback(patch: pytest.MonkeyPatch) -> None:
    def complete(self: DeployEndpointOperator, context: Context, event: Event) -> Deployed:
        return self._in_service(self._serving(Settings.load()))

    patch.setattr(DeployEndpointOperator, "complete", complete)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (_no_lock, "while the lock is"),
        (_no_teardown, "is left running"),
        (_forgets_its_jobs, "was created although"),
        (_trusts_a_rollback, "which never served"),
    ],
)
def test_the_simulator_sees_a_product_that_is_broken(
    fault: Callable[[pytest.MonkeyPatch], None], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    for seed in FIXED:
        with monkeypatch.context() as patch:
            outcome = simulate(seed, 0.1, patch)
        if any(words in line for line in outcome.broken):
            return
    pytest.fail(f"no schedule found that {words}")


@pytest.mark.slow
def test_random_schedules_keep_the_invariants(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if wanted := os.environ.get("SIMULATOR_SEED"):
        return check(int(wanted), monkeypatch)
    first = random.SystemRandom().randrange(10**9)
    for seed in range(first, first + RANDOM):
        check(seed, monkeypatch)
    return None
