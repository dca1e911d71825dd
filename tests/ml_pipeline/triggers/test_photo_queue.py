"""New photos as events: a burst is one event, and its messages go only when the event is stored."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from airflow.triggers.shared_stream import AdvanceItem, AdvanceOutcome

from ml_pipeline.aws.clients import AwsAccess
from ml_pipeline.triggers import photo_stream
from ml_pipeline.triggers.photo_queue import PhotoQueueTrigger, summary
from ml_pipeline.triggers.photo_stream import PhotoQueue
from tests.ml_pipeline.fake_sagemaker import client_error
from tests.ml_pipeline.triggers.test_triggers import ACCESS, Scripted, use


def message(number: int, key: str = "dogs/a%20b.jpg") -> dict[str, Any]:
    record = {"s3": {"bucket": {"name": "photos"}, "object": {"key": key}}}
    return {
        "MessageId": str(number),
        "ReceiptHandle": f"r{number}",
        "Body": json.dumps({"Records": [record]}),
    }


def test_a_burst_in_a_few_words() -> None:
    burst = summary([message(1), message(2, "dogs/c.jpg")])
    assert burst == {"photos": 2, "bucket": "photos", "first": "dogs/a b.jpg"}
    assert summary([{"Body": '{"Event": "s3:TestEvent"}'}, {"Body": "no json"}]) is None


def test_messages_are_collected_until_it_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    sqs = Scripted(receive_message=[{"Messages": [message(1)]}, {"Messages": [message(2)]}, {}])
    use(monkeypatch, sqs=sqs)

    async def first() -> Any:
        async for pair in PhotoQueue("url", 1, AwsAccess()).open_stream():
            return pair
        return None

    burst, messages = asyncio.run(asyncio.wait_for(first(), 10))
    assert burst["photos"] == 2
    assert [entry["ReceiptHandle"] for entry in messages] == ["r1", "r2"]
    assert "delete_message_batch" not in {call for call, _ in sqs.calls}


def test_a_queue_that_is_missing_for_a_while_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = client_error("AWS.SimpleQueueService.NonExistentQueue", "The specified queue does not exist.")
    sqs = Scripted(receive_message=[missing, {"Messages": [message(1)]}, {}])
    use(monkeypatch, sqs=sqs)
    monkeypatch.setattr(photo_stream, "_PAUSE_AFTER_ERROR_SECONDS", 0.0)

    async def first() -> Any:
        async for burst, _ in PhotoQueue("url", 1, AwsAccess()).open_stream():
            return burst
        return None

    assert asyncio.run(asyncio.wait_for(first(), 10))["photos"] == 1


@pytest.mark.parametrize(("acked", "failed", "deletes"), [(1, 0, 2), (0, 1, 0), (0, 0, 0)])
def test_only_a_stored_event_is_deleted(
    monkeypatch: pytest.MonkeyPatch, acked: int, failed: int, deletes: int
) -> None:
    sqs = Scripted()
    use(monkeypatch, sqs=sqs)
    item = AdvanceItem([message(n) for n in range(12)], AdvanceOutcome(acked, failed))
    asyncio.run(PhotoQueue("url", 1, AwsAccess()).advance([item]))
    assert [call for call, _ in sqs.calls] == ["delete_message_batch"] * deletes


def test_one_poll_per_queue_and_a_round_trip() -> None:
    trigger = PhotoQueueTrigger("https://sqs/queue", 2.0, ACCESS)
    again = PhotoQueueTrigger(**trigger.serialize()[1])
    assert again.shared_stream_key() == trigger.shared_stream_key()
    assert again.serialize() == trigger.serialize()
