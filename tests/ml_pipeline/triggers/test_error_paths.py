"""Triggers whose object, or Airflow itself, is not there."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

from ml_pipeline.aws.clients import AwsAccess
from ml_pipeline.triggers import ownership
from ml_pipeline.triggers.base import FAILURE
from ml_pipeline.triggers.instance import InstanceTrigger
from ml_pipeline.triggers.job import JobTrigger
from ml_pipeline.triggers.photo_queue import PhotoQueueTrigger
from ml_pipeline.triggers.photo_stream import PhotoQueue
from tests.ml_pipeline.fake_sagemaker import client_error
from tests.ml_pipeline.triggers.test_photo_queue import message
from tests.ml_pipeline.triggers.test_triggers import ACCESS, Scripted, first_event, use


def no_answer(text: str, kind: ErrorType = ErrorType.API_SERVER_ERROR) -> AirflowRuntimeError:
    return AirflowRuntimeError(ErrorResponse(error=kind, detail={"text": text}))


@pytest.mark.parametrize(
    ("answer", "over"),
    [
        ("running", False),
        ("failed", True),
        ("success", True),
        (no_answer("status_code: 404"), True),
        (no_answer("dagrun not_found"), True),
    ],
    ids=["running", "failed", "success", "deleted", "deleted, in words"],
)
def test_a_run_that_was_deleted_is_over(monkeypatch: pytest.MonkeyPatch, answer: Any, over: bool) -> None:
    def state(dag_id: str, run_id: str) -> str:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(RuntimeTaskInstance, "get_dagrun_state", state)
    assert ownership.run_is_over("dag", "run") is over


def test_a_server_that_does_not_answer_proves_nothing_about_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def state(dag_id: str, run_id: str) -> str:
        raise no_answer("status_code: 503")

    monkeypatch.setattr(RuntimeTaskInstance, "get_dagrun_state", state)
    with pytest.raises(AirflowRuntimeError):
        ownership.run_is_over("dag", "run")


@pytest.mark.parametrize(
    ("states", "over"),
    [({"run": {"task": "failed"}}, True), ({"run": {"task": "up_for_retry"}}, False), ({}, True)],
    ids=["marked", "retried", "deleted"],
)
def test_the_state_of_a_task_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, states: dict[str, Any], over: bool
) -> None:
    class Instance:
        dag_id, run_id, task_id, map_index = "dag", "run", "task", -1

    asked = []

    def task_states(**arguments: Any) -> Any:
        asked.append(arguments)
        return states

    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", task_states)
    assert asyncio.run(ownership.task_is_over(Instance())) is over
    assert asked == [{"dag_id": "dag", "task_ids": ["task"], "run_ids": ["run"], "map_index": -1}]
    assert asyncio.run(ownership.task_is_over(None))


def test_a_kill_goes_on_when_airflow_stops_waiting_for_it() -> None:
    done: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0.05)
        done.append("stopped")

    async def killed() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ownership.even_if_late(work()), 0.01)
        while not done:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(killed(), 10))
    assert done == ["stopped"]


def test_an_instance_that_ec2_does_not_know_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = client_error("InvalidInstanceID.NotFound", "The instance ID 'i-1' does not exist")
    gone = {"Reservations": [{"Instances": [{"State": {"Name": "terminated"}}]}]}
    ec2 = Scripted(describe_instances=[unknown, gone])
    use(monkeypatch, ec2=ec2, ssm=Scripted())
    trigger = InstanceTrigger(instance_id="i-1", poll_seconds=0.0, access=ACCESS)
    assert first_event(trigger) == {"instance_id": "i-1", "state": "terminated"}
    ec2.answers["describe_instances"] = [client_error("InvalidParameterValue", "no")]
    assert "InvalidParameterValue" in first_event(trigger)[FAILURE]


def test_a_job_that_was_deleted_ends_the_wait_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = client_error("ValidationException", "Requested resource not found.")
    use(monkeypatch, sagemaker=Scripted(describe_training_job=[missing]), logs=Scripted())
    event = first_event(JobTrigger(kind="training", job_name="train-1", poll_seconds=0.0, access=ACCESS))
    assert event[FAILURE] == "training job train-1 was deleted; clear this task to run it again"


def test_new_photos_need_the_streams_that_can_be_acknowledged() -> None:
    trigger = PhotoQueueTrigger("url", 1.0, ACCESS)
    with pytest.raises(NotImplementedError, match="shared streams"):
        first_event(trigger)

    async def stream() -> Any:
        yield {"photos": 1}

    async def events() -> list[Any]:
        return [event.payload async for event in trigger.filter_shared_stream(stream())]

    assert asyncio.run(events()) == [{"photos": 1}]
    producer = PhotoQueueTrigger.create_shared_stream_producer(trigger.serialize()[1])
    assert isinstance(producer, PhotoQueue)


def test_a_message_without_photos_is_deleted_and_makes_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    test_event = {"MessageId": "0", "ReceiptHandle": "r0", "Body": json.dumps({"Event": "s3:TestEvent"})}
    sqs = Scripted(receive_message=[{"Messages": [test_event]}, {}, {"Messages": [message(1)]}, {}])
    use(monkeypatch, sqs=sqs)

    async def first() -> Any:
        async for burst, _ in PhotoQueue("url", 1, AwsAccess()).open_stream():
            return burst
        return None

    assert asyncio.run(asyncio.wait_for(first(), 10))["photos"] == 1
    deleted = [arguments["Entries"] for call, arguments in sqs.calls if call == "delete_message_batch"]
    assert deleted == [[{"Id": "0", "ReceiptHandle": "r0"}]]
