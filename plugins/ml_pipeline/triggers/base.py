"""The poll loop that every waiting trigger shares."""

from __future__ import annotations

import asyncio
import random
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, fields
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from ml_pipeline.aws.clients import AccessFields, AwsAccess
from ml_pipeline.aws.log_tail import LogTail
from ml_pipeline.errors import is_survivable, one_line
from ml_pipeline.triggers.clients import Clients
from ml_pipeline.triggers.ownership import even_if_late, task_is_over

# The time that a wait continues without an answer from AWS, unless the param max_outage_hours says otherwise.
DEFAULT_PATIENCE_SECONDS = 6 * 3600.0
# Key of an event that ends a wait which cannot go on; its value is the cause.
FAILURE = "failure"
# During an outage the pauses double up to this: the paid work runs on meanwhile.
_LONGEST_PAUSE = 60.0
# Each pause is longer or shorter by up to this share.
_JITTER = 0.25
# How long a kill keeps trying to stop paid work; the teardown of the run tries again later.
_STOP_SECONDS = 900.0

Event = dict[str, Any]


@dataclass(eq=False, repr=False, kw_only=True)
class PollingTrigger(BaseTrigger):
    """Poll AWS until the thing waited for has happened, then fire once.

    Expired credentials, clock skew, throttling, resets and 5xx answers do not end the wait: it continues for
    `patience_seconds` without an answer, then fires `{"failure": <cause>}`, as it does for any other error. The
    operator that deferred raises it.

    A subclass is a dataclass of what it waits for. It implements `subject`, `poll`, and `stop` if that is paid.

    Args:
        poll_seconds: Pause between two polls.
        access: The fields of `AwsAccess`.
        patience_seconds: Longest time without an answer from AWS.
    """

    poll_seconds: float
    access: AccessFields
    patience_seconds: float = DEFAULT_PATIENCE_SECONDS

    def __post_init__(self) -> None:
        super().__init__()

    @property
    @abstractmethod
    def subject(self) -> str:
        """The object of the wait, for messages: "training job train-1"."""

    @abstractmethod
    async def poll(self, clients: Clients) -> Event | None:
        """Look once.

        Returns:
            The event to fire, or None to look again after a pause.
        """

    async def stop(self, clients: Clients) -> None:
        """End the paid work. Called when the task was killed and will not run again."""

    async def pass_on(self, tail: LogTail, clients: Clients) -> None:
        """Log the new lines of `tail`. A log that cannot be read never ends a wait."""
        try:
            lines = await tail.read(await clients.get("logs"))
        except Exception as error:
            self.log.warning("cannot read the log of %s: %s", self.subject, one_line(error))
            return
        for line in lines:
            self.log.info("%s", line)

    def serialize(self) -> tuple[str, dict[str, object]]:
        """Return the class path and the arguments that make an equal trigger in another process."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return f"{type(self).__module__}.{type(self).__qualname__}", values

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until there is an event."""
        clients = Clients(AwsAccess(**self.access))
        try:
            yield TriggerEvent(await self._event(clients))
        finally:
            await clients.close()

    async def on_kill(self) -> None:
        """Stop the paid work if its task is over; leave it to the next try if the task was cleared or is retried."""
        if type(self).stop is not PollingTrigger.stop:
            await even_if_late(self._stop_if_over())

    async def _event(self, clients: Clients) -> Event:
        clock = asyncio.get_running_loop().time
        last_answer, pause = clock(), self.poll_seconds
        while True:
            try:
                event = await self.poll(clients)
            except Exception as error:
                silence = clock() - last_answer
                if not is_survivable(error):
                    self.log.exception("cannot wait for %s any longer", self.subject)
                    return {FAILURE: f"cannot wait for {self.subject} any longer: {one_line(error)}"}
                if silence >= self.patience_seconds:
                    return {FAILURE: self._gave_up(silence, error)}
                pause = min(2 * pause, max(_LONGEST_PAUSE, self.poll_seconds))
                self.log.warning(
                    "waiting for %s: no answer for %.0f s of at most %.0f s (%s); asking again in %.0f s",
                    self.subject,
                    silence,
                    self.patience_seconds,
                    one_line(error),
                    pause,
                )
                # New connections and new credentials: those of the open clients may have expired.
                await clients.close(renew=True)
            else:
                if event is not None:
                    return event
                last_answer, pause = clock(), self.poll_seconds
            # Waits that began together, or met the same throttling, do not all ask at the same moment again.
            await asyncio.sleep(pause * random.uniform(1 - _JITTER, 1 + _JITTER))

    def _gave_up(self, silence: float, error: Exception) -> str:
        return (
            f"waited for {self.subject} and got no answer from AWS for {silence / 3600:.2g} h: {one_line(error)}. "
            "Restore the access, then clear this task: it finds its work again. Raise max_outage_hours to wait longer"
        )

    async def _stop_if_over(self) -> None:
        async def attempt() -> None:
            if not await task_is_over(self.task_instance):
                self.log.info("%s goes on: the next try of this task adopts it", self.subject)
                return
            self.log.info("stopping %s: its task is over", self.subject)
            clients = Clients(AwsAccess(**self.access))
            try:
                await self.stop(clients)
            finally:
                await clients.close()

        await self._insist(attempt)

    async def _insist(self, action: Callable[[], Awaitable[None]]) -> None:
        clock = asyncio.get_running_loop().time
        deadline, pause = clock() + _STOP_SECONDS, max(1.0, self.poll_seconds)
        while True:
            try:
                return await action()
            except Exception as error:
                if not is_survivable(error) or clock() >= deadline:
                    raise
                self.log.warning(
                    "stopping %s: %s; trying again in %.0f s", self.subject, one_line(error), pause
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
