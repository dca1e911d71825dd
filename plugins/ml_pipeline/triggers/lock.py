"""Wait until an endpoint's lock is free, or its holder's run is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from ml_pipeline.aws.clients import AwsAccess
from ml_pipeline.deployment import locks
from ml_pipeline.errors import is_transient
from ml_pipeline.triggers.ownership import run_is_over


class LockTrigger(BaseTrigger):
    """Fires once, when it is worth trying to take the lock: `{"lock_uri"}`.

    :param lock_uri: see `locks.uri`.
    :param poll_seconds: pause between two looks.
    :param access: fields of `AwsAccess`.
    """

    def __init__(self, lock_uri: str, poll_seconds: float, access: dict[str, Any]) -> None:
        super().__init__()
        self.lock_uri = lock_uri
        self.poll_seconds = poll_seconds
        self.access = AwsAccess(**access)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class path and the arguments that make an equal trigger in another process."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "lock_uri": self.lock_uri,
                "poll_seconds": self.poll_seconds,
                "access": self.access.to_dict(),
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look again and again."""
        while not await sync_to_async(self._free)():
            await asyncio.sleep(self.poll_seconds)
        yield TriggerEvent({"lock_uri": self.lock_uri})

    def _free(self) -> bool:
        try:
            lock = locks.read(self.access.client("s3"), self.lock_uri)
            return lock is None or run_is_over(lock.holder.dag_id, lock.holder.run_id)
        except Exception as error:
            if not is_transient(error):
                raise
            self.log.warning("%s; looking again in %.0f s", error, self.poll_seconds)
            return False
