"""Triggers as coroutines: they survive a trip through serialize(), poll, log, and stop only what is over."""

from __future__ import annotations

import asyncio
import json
import re
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.module_loading import import_string

from ml_pipeline.aws.clients import AwsAccess
from ml_pipeline.aws.jobs import JobKind
from ml_pipeline.aws.log_tail import LogTail
from ml_pipeline.deployment.status import ABSENT
from ml_pipeline.triggers import job as job_trigger
from ml_pipeline.triggers.endpoint import EndpointTrigger
from ml_pipeline.triggers.job import JobTrigger, progress_of
from ml_pipeline.triggers.ownership import is_over
from tests.ml_pipeline.fake_sagemaker import client_error

ACCESS = AwsAccess("aws_default", "eu-west-1").to_dict()


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
    [JobTrigger("tuning", "tune-1", 0.5, ACCESS), EndpointTrigger("photo-classifier", 30.0, ACCESS)],
    ids=lambda trigger: type(trigger).__name__,
)
def test_serialize_round_trip(trigger: Any) -> None:
    path, arguments = trigger.serialize()
    again = import_string(path)(**json.loads(json.dumps(arguments)))
    assert again.serialize() == (path, arguments)


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
    event = first_event(JobTrigger("training", "t", 0.01, ACCESS))
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
    event = first_event(JobTrigger("training", "t", 0.01, ACCESS))
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
    assert first_event(JobTrigger("processing", "p", 0.01, ACCESS))["status"] == "Completed"


@pytest.mark.parametrize(("over", "stops"), [(True, 1), (False, 0)])
def test_on_kill_stops_only_a_job_without_a_task(
    monkeypatch: pytest.MonkeyPatch, over: bool, stops: int
) -> None:
    async def task_is_over(task_instance: object) -> bool:
        return over

    monkeypatch.setattr(job_trigger, "task_is_over", task_is_over)
    sagemaker = Scripted()
    use(monkeypatch, sagemaker=sagemaker)
    trigger = JobTrigger("tuning", "tune-1", 1, ACCESS)
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
    event = first_event(EndpointTrigger("e", 0.01, ACCESS))
    assert event == {"status": "InService", "config": "old", "reason": ""}


def test_endpoint_trigger_says_that_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = client_error("ValidationException", "Could not find endpoint")
    use(monkeypatch, sagemaker=Scripted(describe_endpoint=[missing]))
    assert first_event(EndpointTrigger("e", 0.01, ACCESS))["status"] == ABSENT


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
        return asyncio.run(LogTail(logs, "group", "job/").read())

    assert read("algo-1-17") == ["line of algo-1-17"]
    assert read("algo-1-17", "algo-1-18") == ["line of algo-1-17", "line of algo-1-18"]
    assert read("algo-1-17", "algo-2-17") == ["[algo-1] line of algo-1-17", "[algo-2] line of algo-2-17"]
