"""Reader of the queue of new photos: a shared stream of Airflow 3.3, which acknowledges what was stored."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence

from airflow.triggers.shared_stream import AdvanceItem, SharedStreamProducer

from ml_pipeline.aws.clients import AwsAccess, Client
from ml_pipeline.triggers.photo_queue import Burst, Message, summary

log = logging.getLogger(__name__)
# A copy of a folder sends one message per photo: messages in quick succession are one event, and one run.
_LONGEST_COLLECTION_SECONDS = 300.0
_MOST_MESSAGES = 5000
# Long enough to collect and to store the event: until then no other reader gets the message.
_VISIBILITY_SECONDS = 900
_PAUSE_AFTER_ERROR_SECONDS = 10.0


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
