"""The base operator."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from ml_pipeline.aws.clients import AwsAccess
from ml_pipeline.errors import JobFailed, WaitFailed
from ml_pipeline.operators.aws import AwsOperator
from ml_pipeline.triggers import base
from ml_pipeline.triggers.job import JobTrigger
from tests.ml_pipeline.fake_sagemaker import client_error
from tests.ml_pipeline.operators.instance import Instance, context
from tests.simulator.runs import Work
from tests.simulator.work import Job
from tests.simulator.world import Client, World


def test_operators_take_the_connection_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_AWS_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("ML_PIPELINE_AWS_CONN_ID", "team_aws")
    assert AwsOperator(task_id="a").access.aws_conn_id == "team_aws"
    assert AwsOperator(task_id="b", aws_conn_id="own").access.aws_conn_id == "own"


@pytest.fixture
def waiting(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """AWS for tasks that wait by themselves; a pause takes seconds of its clock, and none of ours."""
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        world.clock.now += seconds
        await real(0)

    monkeypatch.setenv("ML_PIPELINE_WAIT_SECONDS", "30")
    monkeypatch.setenv("ML_PIPELINE_POLL_SECONDS", "5")
    monkeypatch.setattr(base.asyncio, "sleep", sleep)
    return world


def job_of(world: World, ends: float, outcome: tuple[str, str] = ("Completed", "")) -> None:
    """Let the next jobs end at a time."""
    create = world.job_call

    def call(method: str, arguments: dict[str, Any]) -> Any:
        answer = create(method, arguments)
        for job in world.jobs.values():
            job.ends, job.outcome = ends, outcome
        return answer

    world.job_call = call  # type: ignore[method-assign]


def only(world: World) -> Job:
    """The one job that there is."""
    (job,) = world.jobs.values()
    return job


def test_a_task_waits_by_itself_for_a_short_job(waiting: World) -> None:
    job_of(waiting, ends=12.0)
    assert Work(task_id="work").execute(context(Instance())) == {"job": only(waiting).name}


def test_a_job_that_fails_meanwhile_fails_the_task(waiting: World) -> None:
    job_of(waiting, ends=12.0, outcome=("Failed", "AlgorithmError: bad"))
    with pytest.raises(JobFailed, match="is Failed: AlgorithmError: bad"):
        Work(task_id="work").execute(context(Instance()))


def test_a_wait_that_cannot_go_on_stops_the_job(waiting: World, monkeypatch: pytest.MonkeyPatch) -> None:
    polls = JobTrigger.poll

    async def poll(self: JobTrigger, clients: Any) -> Any:
        if waiting.now > 10:
            raise client_error("ValidationException", "no such thing")
        return await polls(self, clients)

    monkeypatch.setattr(JobTrigger, "poll", poll)
    job_of(waiting, ends=1000.0)
    with pytest.raises(WaitFailed, match="no such thing"):
        Work(task_id="work").execute(context(Instance()))
    assert only(waiting).stopped is not None


def test_expired_credentials_are_replaced_while_a_task_waits(
    waiting: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    expired = iter([True])

    class Expiring(Client):
        def __getattr__(self, method: str) -> Any:
            if method == "describe_processing_job" and len(made) == 2 and next(expired, False):
                raise client_error("ExpiredTokenException", "expired")
            return super().__getattr__(method)

    def client(self: AwsAccess, service: str) -> Client:
        made.append(service)
        return Expiring(waiting, service)

    monkeypatch.setattr(AwsAccess, "client", client)
    job_of(waiting, ends=12.0)
    assert Work(task_id="work").execute(context(Instance())) == {"job": only(waiting).name}
    assert made.count("sagemaker") == 3  # the task's, that of its wait, and the new one


@pytest.mark.parametrize("seconds", ["0", "0.001", ""])
def test_a_long_job_is_left_to_the_triggerer(
    waiting: World, monkeypatch: pytest.MonkeyPatch, seconds: str
) -> None:
    monkeypatch.setenv("ML_PIPELINE_WAIT_SECONDS", seconds)
    job_of(waiting, ends=1000.0)
    with pytest.raises(TaskDeferred) as deferred:
        Work(task_id="work").execute(context(Instance()))
    _, arguments = deferred.value.trigger.serialize()
    assert arguments["job_name"] == only(waiting).name
    assert only(waiting).stopped is None
