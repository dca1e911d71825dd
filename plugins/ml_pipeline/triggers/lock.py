"""Wait until an endpoint's lock is free, or the run that holds it is over."""

from __future__ import annotations

from dataclasses import dataclass

from asgiref.sync import sync_to_async

from ml_pipeline.aws.clients import AwsAccess
from ml_pipeline.deployment import locks
from ml_pipeline.triggers.base import Event, PollingTrigger
from ml_pipeline.triggers.clients import Clients
from ml_pipeline.triggers.ownership import run_is_over


@dataclass(eq=False, repr=False, kw_only=True)
class LockTrigger(PollingTrigger):
    """Fire when the lock can be taken: `{"lock_uri"}`.

    Args:
        lock_uri: See `locks.uri`.
    """

    lock_uri: str

    @property
    def subject(self) -> str:
        """The lock."""
        return f"the lock {self.lock_uri}"

    async def poll(self, clients: Clients) -> Event | None:
        """Look at the lock and at the run that holds it."""
        return {"lock_uri": self.lock_uri} if await sync_to_async(self._free)() else None

    def _free(self) -> bool:
        lock = locks.read(AwsAccess(**self.access).client("s3"), self.lock_uri)
        return lock is None or run_is_over(lock.holder.dag_id, lock.holder.run_id)
