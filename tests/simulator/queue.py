"""Triggerers that read the queue of new photos, die, and cannot always store what they read."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from airflow.triggers.shared_stream import AdvanceItem, AdvanceOutcome

from ml_pipeline.aws.clients import AwsAccess
from ml_pipeline.triggers.photo_stream import PhotoQueue
from tests.simulator.storage import Message
from tests.simulator.world import World

_PHOTOS = 12
_LONGEST_SECONDS = 4 * 86400.0


class Readers:
    """One triggerer, at times a second one.

    Attributes:
        stored: Photos of the asset events in Airflow's database.
        lost: Photos whose message was deleted before their event was stored.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.stored: set[str] = set()
        self.lost: list[str] = []
        delete = world.sqs_delete_message_batch

        def checked(**request: Any) -> Any:
            answer = delete(**request)
            self.lost += [key for key in _keys(m for m in world.queue if m.deleted) if key not in self.stored]
            return answer

        world.sqs_delete_message_batch = checked  # type: ignore[method-assign, assignment]

    async def work(self) -> None:
        """Read until the queue is empty."""
        random = self.world.random
        photos = asyncio.create_task(self._photos())
        deadline = self.world.now + _LONGEST_SECONDS
        while not photos.done() or (self._waiting() and self.world.now < deadline):
            readers = [asyncio.create_task(self._read()) for _ in range(random.choice([1, 1, 2]))]
            await asyncio.wait(readers, timeout=random.uniform(100, 3000))
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)

    async def _photos(self) -> None:
        for number in range(_PHOTOS):
            await asyncio.sleep(self.world.random.choice([0.0, 1.0, 60.0, 600.0]))
            record = {"s3": {"bucket": {"name": "bucket"}, "object": {"key": f"new/{number}.jpg"}}}
            self.world.queue.append(Message(json.dumps({"Records": [record]}), self.world.now))

    async def _read(self) -> None:
        queue, random = PhotoQueue("url", 5, AwsAccess()), self.world.random
        async for burst, messages in queue.open_stream():
            assert burst["photos"] == len(messages)
            await asyncio.sleep(random.choice([0.0, 2.0, 50.0]))
            stores = random.random() < 0.8
            if stores:
                self.stored.update(_keys(messages))
            await asyncio.sleep(random.choice([0.0, 2.0]))
            await queue.advance([AdvanceItem(messages, AdvanceOutcome(int(stores), int(not stores)))])

    def _waiting(self) -> bool:
        return any(not message.deleted for message in self.world.queue)

    def broken(self) -> list[str]:
        missing = sorted({f"new/{number}.jpg" for number in range(_PHOTOS)} - self.stored)
        return [
            *(f"the message about {key} was deleted before its event was stored" for key in self.lost),
            *(f"no event tells of {key}" for key in missing),
        ]


def _keys(messages: Any) -> list[str]:
    bodies = (message["Body"] if isinstance(message, dict) else message.body for message in messages)
    return [record["s3"]["object"]["key"] for body in bodies for record in json.loads(body)["Records"]]
