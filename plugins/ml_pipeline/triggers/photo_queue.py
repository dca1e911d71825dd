"""Turn S3 notifications of new photos, read from SQS, into asset events.

A message is deleted only after its event is stored. The stock SQS trigger deletes on receipt: a triggerer that dies in
between loses the event. This one runs in the acknowledged mode of Airflow's shared streams: the triggerer calls
`advance` once the asset event is in the database, and until then the messages stay in the queue, hidden for a while and
then delivered again. An event may therefore come twice, which is harmless: the second run finds the data set unchanged.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Hashable, Sequence
from typing import TYPE_CHECKING, Any, TypedDict
from urllib.parse import unquote_plus

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from ml_pipeline.aws.clients import AccessFields, AwsAccess

if TYPE_CHECKING:
    from airflow.triggers.shared_stream import SharedStreamProducer

# A message of SQS, or a record of S3 inside it.
Message = dict[str, Any]


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
        from ml_pipeline.triggers.photo_stream import PhotoQueue  # whose base Airflow 3.2 lacks

        return PhotoQueue(kwargs["queue_url"], float(kwargs["quiet_seconds"]), AwsAccess(**kwargs["access"]))

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Burst]) -> AsyncIterator[TriggerEvent]:
        """Fire an event for every burst."""
        async for burst in shared_stream:
            yield TriggerEvent(burst)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Refuse to run without shared streams: nothing could be acknowledged."""
        raise NotImplementedError("this trigger needs the shared streams of Airflow 3.3")
        yield  # makes it an async generator


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
