"""Triggers as coroutines: they survive a trip through serialize(), poll, log, and stop only what is over."""

from __future__ import annotations

import asyncio
import json
import re
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.module_loading import import_string
from botocore.exceptions import NoCredentialsError, TokenRetrievalError

from ml_pipeline.aws.clients import AwsAccess
from ml_pipeline.aws.jobs import JobKind
from ml_pipeline.aws.log_tail import LogTail
from ml_pipeline.deployment.status import ABSENT
from ml_pipeline.triggers import base
from ml_pipeline.triggers.base import DEFAULT_PATIENCE_SECONDS, FAILURE
from ml_pipeline.triggers.command import CommandTrigger
from ml_pipeline.triggers.endpoint import EndpointTrigger
from ml_pipeline.triggers.instance import InstanceTrigger
from ml_pipeline.triggers.job import JobTrigger, progress_of
from ml_pipeline.triggers.lock import LockTrigger
from ml_pipeline.triggers.ownership import is_over
from tests.ml_pipeline.fake_sagemaker import client_error

ACCESS = AwsAccess("aws_default", "eu-west-1").to_dict()

# What the release of commit 8aecd8f stored for its deferred tasks.
_OLD: dict[str, Any] = {"poll_seconds": 30.0, "access": ACCESS}
STORED: list[tuple[str, dict[str, Any]]] = [
    ("ml_pipeline.triggers.job.JobTrigger", {"kind": "training", "job_name": "train-1", **_OLD}),
    ("ml_pipeline.triggers.endpoint.EndpointTrigger", {"endpoint_name": "photo-classifier", **_OLD}),
    ("ml_pipeline.triggers.lock.LockTrigger", {"lock_uri": "s3://bucket/locks/dogs.json", **_OLD}),
    ("ml_pipeline.triggers.instance.InstanceTrigger", {"instance_id": "i-1", **_OLD}),
    ("ml_pipeline.triggers.command.CommandTrigger", {"command_id": "c-1", "instance_id": "i-1", **_OLD}),
]


class Scripted:
    """An async client whose methods answer from a list; an exception in the list is raised."""

    def __init__(self, **answers: list[Any]) -> None:
        self.answers = answers
        self.calls: list[tuple[str, dict[str, Any]]] = []

    async def __aenter__(self) -> Scripted:
        return self

    async def __aexit__(self, *error: object) -> None:
        return None

    def __getattr__(self, method: str) -> Any:
        async def call(**arguments: Any) -> Any:
            self.calls.append((method, arguments))
            queue = self.answers.get(method, [{}])
            answer = queue.pop(0) if len(queue) > 1 else queue[0]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


def use(monkeypatch: pytest.MonkeyPatch, **clients: Scripted) -> None:
    async def client(self: AwsAccess, service: str) -> Scripted:
        return clients[service]

    monkeypatch.setattr(AwsAccess, "async_client", client)


def first_event(trigger: Any) -> Any:
    async def run() -> Any:
        async for event in trigger.run():
            return event.payload
        return None

    return asyncio.run(asyncio.wait_for(run(), 10))


@pytest.mark.parametrize(
    "trigger",
    [
        JobTrigger(kind="tuning", job_name="tune-1", poll_seconds=0.5, access=ACCESS, patience_seconds=60.0),
        EndpointTrigger(
            endpoint_name="photo-classifier", poll_seconds=30.0, access=ACCESS, patience_seconds=60.0
        ),
        LockTrigger(
            lock_uri="s3://bucket/locks/dogs.json", poll_seconds=30.0, access=ACCESS, patience_seconds=60.0
        ),
        InstanceTrigger(instance_id="i-1", poll_seconds=30.0, access=ACCESS, patience_seconds=60.0),
        CommandTrigger(
            command_id="c-1", instance_id="i-1", poll_seconds=30.0, access=ACCESS, patience_seconds=60.0
        ),
    ],
    ids=lambda trigger: type(trigger).__name__,
)
def test_serialize_round_trip(trigger: Any) -> None:
    path, arguments = trigger.serialize()
    again = import_string(path)(**json.loads(json.dumps(arguments)))
    assert again.serialize() == (path, arguments)


@pytest.mark.parametrize("stored", STORED, ids=lambda stored: stored[0].rpartition(".")[2])
def test_a_wait_that_was_stored_by_an_earlier_release_goes_on(stored: tuple[str, dict[str, Any]]) -> None:
    path, arguments = stored
    trigger = import_string(path)(**json.loads(json.dumps(arguments)))
    again, now = trigger.serialize()
    assert again == path
    assert {name: now[name] for name in arguments} == arguments
    assert now["patience_seconds"] == DEFAULT_PATIENCE_SECONDS


def test_job_trigger_passes_the_log_on_and_ends_with_the_job(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    running = {"TrainingJobName": "t", "TrainingJobStatus": "InProgress", "SecondaryStatus": "Training"}
    failed = {**running, "TrainingJobStatus": "Failed", "FailureReason": "AlgorithmError: bad"}
    sagemaker = Scripted(describe_training_job=[running, running, failed])
    logs = Scripted(
        describe_log_streams=[
            client_error("ResourceNotFoundException", "The specified log group does not exist."),
            {"logStreams": [{"logStreamName": "t/algo-1-17"}]},
        ],
        get_log_events=[
            {"events": [{"message": "progress done=1 total=2 unit=epochs"}], "nextForwardToken": "f/1"},
            {"events": [], "nextForwardToken": "f/1"},
        ],
    )
    use(monkeypatch, sagemaker=sagemaker, logs=logs)
    event = first_event(JobTrigger(kind="training", job_name="t", poll_seconds=0.01, access=ACCESS))
    assert event == {"job_name": "t", "status": "Failed", "reason": "AlgorithmError: bad"}
    assert capsys.readouterr().out.count("progress done=1 total=2 unit=epochs") == 1


@pytest.mark.parametrize(
    ("ended", "reason"),
    [
        ({"SecondaryStatus": "MaxRuntimeExceeded"}, "MaxRuntimeExceeded; .*raise max_job_hours"),
        ({"SecondaryStatus": "MaxWaitTimeExceeded"}, "MaxWaitTimeExceeded; .*turn spot off"),
        ({"SecondaryStatus": "Stopped"}, "$"),
        ({"SecondaryStatus": "Stopped", "FailureReason": "by hand"}, "by hand$"),
    ],
)
def test_a_job_that_was_stopped_says_what_stopped_it(
    monkeypatch: pytest.MonkeyPatch, ended: dict[str, str], reason: str
) -> None:
    stopped = {"TrainingJobName": "t", "TrainingJobStatus": "Stopped", **ended}
    logs = Scripted(describe_log_streams=[{"logStreams": []}])
    use(monkeypatch, sagemaker=Scripted(describe_training_job=[stopped]), logs=logs)
    event = first_event(JobTrigger(kind="training", job_name="t", poll_seconds=0.01, access=ACCESS))
    assert re.match(reason, event["reason"])


def test_job_trigger_outlives_an_unreachable_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    done = {"ProcessingJobName": "p", "ProcessingJobStatus": "Completed"}
    sagemaker = Scripted(
        describe_processing_job=[
            ConnectionRefusedError("down"),
            client_error("ThrottlingException", "slow down"),
            done,
        ]
    )
    use(monkeypatch, sagemaker=sagemaker, logs=Scripted(describe_log_streams=[{"logStreams": []}]))
    assert (
        first_event(JobTrigger(kind="processing", job_name="p", poll_seconds=0.01, access=ACCESS))["status"]
        == "Completed"
    )


@pytest.mark.parametrize(
    "error",
    [
        client_error("ExpiredTokenException", "The security token included in the request is expired"),
        client_error(
            "RequestTimeTooSkewed", "The difference between the request time and ours is too large."
        ),
        client_error("InvalidSignatureException", "Signature expired: 1 is now earlier than 2"),
        client_error("AccessDeniedException", "not authorized to perform: sagemaker:DescribeTrainingJob"),
        client_error("UnrecognizedClientException", "The security token included in the request is invalid."),
        client_error("503", "Service Unavailable", status=503),
        NoCredentialsError(),
        TokenRetrievalError(provider="sso", error_msg="expired"),
        ConnectionResetError("reset"),
    ],
    ids=lambda error: str(error)[:30],
)
def test_a_wait_outlives_an_outage_and_gives_up_with_its_cause(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    done = {"ProcessingJobName": "p", "ProcessingJobStatus": "Completed"}
    logs = Scripted(describe_log_streams=[{"logStreams": []}])
    use(monkeypatch, sagemaker=Scripted(describe_processing_job=[error, error, done]), logs=logs)
    assert (
        first_event(JobTrigger(kind="processing", job_name="p", poll_seconds=0.01, access=ACCESS))["status"]
        == "Completed"
    )
    use(monkeypatch, sagemaker=Scripted(describe_processing_job=[error]), logs=logs)
    failure = first_event(
        JobTrigger(kind="processing", job_name="p", poll_seconds=0.01, access=ACCESS, patience_seconds=0.02)
    )[FAILURE]
    assert "processing job p" in failure
    assert str(error).split(":")[-1].strip() in failure
    assert "max_outage_hours" in failure


def test_every_outage_ends_with_new_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    done = {"ProcessingJobName": "p", "ProcessingJobStatus": "Completed"}
    expired = client_error("ExpiredToken", "expired")
    clients = [Scripted(describe_processing_job=[expired]), Scripted(describe_processing_job=[done])]
    logs = Scripted(describe_log_streams=[{"logStreams": []}])

    async def client(self: AwsAccess, service: str) -> Scripted:
        return clients.pop(0) if service == "sagemaker" else logs

    monkeypatch.setattr(AwsAccess, "async_client", client)
    assert (
        first_event(JobTrigger(kind="processing", job_name="p", poll_seconds=0.01, access=ACCESS))["status"]
        == "Completed"
    )
    assert not clients


def test_an_error_that_no_wait_mends_ends_it_with_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = client_error("ValidationException", "1 validation error detected")
    use(monkeypatch, sagemaker=Scripted(describe_processing_job=[bad]))
    failure = first_event(JobTrigger(kind="processing", job_name="p", poll_seconds=0.01, access=ACCESS))[
        FAILURE
    ]
    assert "processing job p" in failure
    assert "1 validation error detected" in failure


def test_a_log_that_cannot_be_read_ends_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    done = {"ProcessingJobName": "p", "ProcessingJobStatus": "Completed"}
    logs = Scripted(describe_log_streams=[client_error("AccessDeniedException", "no right to logs")])
    use(monkeypatch, sagemaker=Scripted(describe_processing_job=[done]), logs=logs)
    assert (
        first_event(JobTrigger(kind="processing", job_name="p", poll_seconds=0.01, access=ACCESS))["status"]
        == "Completed"
    )


def test_a_kill_insists_on_stopping_through_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    async def task_is_over(task_instance: object) -> bool:
        return True

    async def no_pause(seconds: float) -> None:
        return None

    monkeypatch.setattr(base, "task_is_over", task_is_over)
    monkeypatch.setattr(base.asyncio, "sleep", no_pause)
    answers = [client_error("ExpiredToken", "expired"), client_error("ThrottlingException", "slow"), {}]
    sagemaker = Scripted(stop_training_job=answers)
    use(monkeypatch, sagemaker=sagemaker)
    asyncio.run(JobTrigger(kind="training", job_name="t", poll_seconds=1, access=ACCESS).on_kill())
    assert [method for method, _ in sagemaker.calls] == ["stop_training_job"] * 3


@pytest.mark.parametrize(("over", "stops"), [(True, 1), (False, 0)])
def test_on_kill_stops_only_a_job_without_a_task(
    monkeypatch: pytest.MonkeyPatch, over: bool, stops: int
) -> None:
    async def task_is_over(task_instance: object) -> bool:
        return over

    monkeypatch.setattr(base, "task_is_over", task_is_over)
    sagemaker = Scripted()
    use(monkeypatch, sagemaker=sagemaker)
    trigger = JobTrigger(kind="tuning", job_name="tune-1", poll_seconds=1, access=ACCESS)
    trigger.task_instance = SimpleNamespace(task_id="tune")
    asyncio.run(trigger.on_kill())
    stop = ("stop_hyper_parameter_tuning_job", {"HyperParameterTuningJobName": "tune-1"})
    assert sagemaker.calls == [stop] * stops


@pytest.mark.parametrize(
    ("states", "over"),
    [
        ({}, True),
        ({"run": {"tune": "failed"}}, True),
        ({"run": {"tune": "success"}}, True),
        ({"run": {"tune": "skipped"}}, True),
        ({"run": {"tune": None}}, False),
        ({"run": {"tune": "scheduled"}}, False),
        ({"run": {"tune": "queued"}}, False),
        ({"run": {"tune": "up_for_retry"}}, False),
        ({"run": {"tune_3": "deferred"}}, False),
    ],
)
def test_is_over(states: dict[str, dict[str, Any]], over: bool) -> None:
    assert is_over(states, "run") is over


def test_endpoint_trigger_waits_for_a_settled_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    statuses = ["Creating", "Updating", "RollingBack", "InService"]
    answers = [{"EndpointStatus": status, "EndpointConfigName": "old"} for status in statuses]
    use(monkeypatch, sagemaker=Scripted(describe_endpoint=answers))
    event = first_event(EndpointTrigger(endpoint_name="e", poll_seconds=0.01, access=ACCESS))
    assert event == {"status": "InService", "config": "old", "reason": ""}


def test_endpoint_trigger_says_that_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = client_error("ValidationException", "Could not find endpoint")
    use(monkeypatch, sagemaker=Scripted(describe_endpoint=[missing]))
    assert (
        first_event(EndpointTrigger(endpoint_name="e", poll_seconds=0.01, access=ACCESS))["status"] == ABSENT
    )


def test_tuning_progress_counts_ended_trials() -> None:
    description = {
        "HyperParameterTuningJobConfig": {"ResourceLimits": {"MaxNumberOfTrainingJobs": 12}},
        "TrainingJobStatusCounters": {"Completed": 3, "InProgress": 2, "NonRetryableError": 1},
        "BestTrainingJob": {
            "FinalHyperParameterTuningJobObjectiveMetric": {"MetricName": "valid_accuracy", "Value": 0.81234}
        },
    }
    line = progress_of(JobKind.TUNING, description)
    assert line == "progress done=4 total=12 unit=trials best_valid_accuracy=0.8123"


def test_lines_say_which_machine_they_are_of_when_there_are_several() -> None:
    def read(*streams: str) -> list[str]:
        found = [{"logStreamName": f"job/{stream}"} for stream in streams]
        answers = [
            {"events": [{"message": f"line of {stream}"}], "nextForwardToken": "1"} for stream in streams
        ]
        logs = Scripted(describe_log_streams=[{"logStreams": found}], get_log_events=answers)
        # Each stream is read until its token stays the same: here after its first answer.
        logs.answers["get_log_events"] = [
            part for answer in answers for part in (answer, {**answer, "events": []})
        ]
        return asyncio.run(LogTail("group", "job/").read(logs))

    assert read("algo-1-17") == ["line of algo-1-17"]
    assert read("algo-1-17", "algo-1-18") == ["line of algo-1-17", "line of algo-1-18"]
    assert read("algo-1-17", "algo-2-17") == ["[algo-1] line of algo-1-17", "[algo-2] line of algo-2-17"]
