"""Turn S3 notifications of new photos, read from SQS, into asset events.

A message is deleted only after its event is stored. The stock SQS trigger deletes on receipt: a triggerer that dies in
between loses the event. This one runs in the acknowledged mode of Airflow's shared streams: the triggerer calls
`advance` once the asset event is in the database, and until then the messages stay in the queue, hidden for a while and
then delivered again. An event may therefore come twice, which is harmless: the second run finds the data set unchanged.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Hashable, Sequence
from typing import Any, TypedDict
from urllib.parse import unquote_plus

from airflow.triggers.base import BaseEventTrigger, TriggerEvent
from airflow.triggers.shared_stream import AdvanceItem, SharedStreamProducer

from ml_pipeline.aws.clients import AccessFields, AwsAccess, Client

# A message of SQS, or a record of S3 inside it.
Message = dict[str, Any]
log = logging.getLogger(__name__)
# A copy of a folder sends one message per photo: messages in quick succession are one event, and one run.
_LONGEST_COLLECTION_SECONDS = 300.0
_MOST_MESSAGES = 5000
# Long enough to collect and to store the event: until then no other reader gets the message.
_VISIBILITY_SECONDS = 900
_PAUSE_AFTER_ERROR_SECONDS = 10.0


class Burst(TypedDict):
    """The payload of an asset event: new objects, and the first of them."""

    photos: int
    bucket: str
    first: str


class PhotoQueueTrigger(BaseEventTrigger):
    """Fire once per burst of new photos, with a `Burst`.

    Args:
        queue_url: SQS queue that the bucket's notifications go to.
        quiet_seconds: A burst is over when nothing has come for this long.
        access: Fields of `AwsAccess`.
    """

    def __init__(self, queue_url: str, quiet_seconds: float, access: AccessFields) -> None:
        super().__init__()
        self.queue_url = queue_url
        self.quiet_seconds = quiet_seconds
        self.access = access

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that make an equal trigger in another process."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {"queue_url": self.queue_url, "quiet_seconds": self.quiet_seconds, "access": self.access},
        )

    def shared_stream_key(self) -> Hashable | None:
        """Share one poll per queue."""
        return ("ml_pipeline.photo_queue", self.queue_url)

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> SharedStreamProducer:
        """Return the reader of the queue; see `PhotoQueue`."""
        return PhotoQueue(kwargs["queue_url"], float(kwargs["quiet_seconds"]), AwsAccess(**kwargs["access"]))

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Burst]) -> AsyncIterator[TriggerEvent]:
        """Fire an event for every burst."""
        async for burst in shared_stream:
            yield TriggerEvent(burst)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Refuse to run without shared streams: nothing could be acknowledged."""
        raise NotImplementedError("this trigger needs the shared streams of Airflow 3.3")
        yield  # makes it an async generator


class PhotoQueue(SharedStreamProducer):
    """Read bursts of messages, and delete each burst once its event is stored."""

    def __init__(self, queue_url: str, quiet_seconds: float, access: AwsAccess) -> None:
        self._queue_url = queue_url
        self._quiet_seconds = quiet_seconds
        self._access = access

    async def open_stream(self) -> AsyncIterator[tuple[Burst, list[Message]]]:
        """Yield (burst, messages) without end."""
        async with await self._access.async_client("sqs") as sqs:
            while True:
                try:
                    messages = await self._collect(sqs)
                except Exception:
                    # A watcher has no task that could fail: it logs the error, and continues once the cause is gone.
                    log.exception("queue %s cannot be read", self._queue_url)
                    await asyncio.sleep(_PAUSE_AFTER_ERROR_SECONDS)
                    continue
                burst = summary(messages)
                if burst:
                    yield burst, messages
                elif messages:
                    await self._delete(sqs, messages)

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """Delete the messages of every burst whose event is stored; leave the others to be delivered again."""
        async with await self._access.async_client("sqs") as sqs:
            for item in batch:
                if item.outcome.is_clean:
                    await self._delete(sqs, item.broker_payload)

    async def _collect(self, sqs: Client) -> list[Message]:
        found: list[Message] = []
        deadline = time.monotonic() + _LONGEST_COLLECTION_SECONDS
        while len(found) < _MOST_MESSAGES and time.monotonic() < deadline:
            # SQS waits 20 seconds at most; while nothing has come, each answer is empty.
            wait = 20 if not found else max(1, min(20, round(self._quiet_seconds)))
            response = await sqs.receive_message(
                QueueUrl=self._queue_url,
                MaxNumberOfMessages=10,
                WaitTimeSeconds=wait,
                VisibilityTimeout=_VISIBILITY_SECONDS,
            )
            messages = response.get("Messages", [])
            if not messages:
                break
            found += messages
        return found

    async def _delete(self, sqs: Client, messages: Sequence[Message]) -> None:
        for start in range(0, len(messages), 10):
            entries = [
                {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
                for number, message in enumerate(messages[start : start + 10])
            ]
            # One that could not be deleted comes again, as a second event: harmless.
            await sqs.delete_message_batch(QueueUrl=self._queue_url, Entries=entries)


def summary(messages: Sequence[Message]) -> Burst | None:
    """Summarize a burst of S3 notifications; None if there is no object in it (S3's test event)."""
    found = [
        (record["s3"]["bucket"]["name"], unquote_plus(record["s3"]["object"]["key"]))
        for message in messages
        for record in _records(message["Body"])
    ]
    if not found:
        return None
    return {"photos": len(found), "bucket": found[0][0], "first": found[0][1]}


def _records(body: str) -> list[Message]:
    try:
        records = json.loads(body).get("Records", [])
    except (ValueError, AttributeError):
        return []
    return [record for record in records if "s3" in record]
