"""Spread a command over its instances: MaxConcurrency and MaxErrors of SendCommand."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from local_aws.ec2.instance import Instance
from local_aws.ec2.run_command import KIND, Script
from local_aws.ec2.running import Running
from local_aws.state.resources import Document, Missing

logger = logging.getLogger(__name__)

DEFAULT_CONCURRENCY = "50"
DEFAULT_ERRORS = "0"
WATCH_SECONDS = 0.1

TERMINATED: Document = {"Status": "Cancelled", "StatusDetails": "Terminated"}
"""MaxErrors was exceeded before the command was sent to this instance."""
UNDELIVERED: Document = {"Status": "TimedOut", "StatusDetails": "DeliveryTimedOut"}
"""TimeoutSeconds were over before it was."""


@dataclass(frozen=True)
class Limits:
    """Limits of a rollout.

    Args:
        concurrency: instances that run the command at once.
        errors: failures after which no further instance starts.
        deadline: epoch seconds after which no further instance starts.
    """

    concurrency: int
    errors: int
    deadline: float


def limits(params: Document, instances: int, deadline: float) -> Limits:
    """Return the limits of a SendCommand request that reaches `instances` instances."""
    return Limits(
        concurrency=max(1, number(params.get("MaxConcurrency", DEFAULT_CONCURRENCY), instances)),
        errors=number(params.get("MaxErrors", DEFAULT_ERRORS), instances),
        deadline=deadline,
    )


def number(text: str, of: int) -> int:
    """`10` -> 10, `25%` -> a quarter of `of`, rounded down."""
    return of * int(text[:-1]) // 100 if text.endswith("%") else int(text)


class Rollout:
    """One command on its way; the constructor returns once as many instances as allowed have started."""

    def __init__(self, instances: Sequence[Instance], script: Script, allowed: Limits) -> None:
        self._script, self._limits = script, allowed
        self._waiting = deque(instances)
        self._begun: list[Instance] = []
        self._advance()
        if self._waiting:
            name = f"rollout of {script.command_id}"
            threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self) -> None:
        context = self._waiting[0].context
        try:
            while self._waiting and not context.stopping.wait(WATCH_SECONDS):
                self._advance()
        except Missing:
            logger.debug("command %s was forgotten while it spread", self._script.command_id)

    def _advance(self) -> None:
        """Start what may start; skip the rest after too many errors or after the deadline."""
        while self._waiting:
            active, failed = self._count()
            if failed > self._limits.errors:
                return self._skip(TERMINATED)
            if time.time() > self._limits.deadline:
                return self._skip(UNDELIVERED)
            if active >= self._limits.concurrency:
                return None
            instance = self._waiting.popleft()
            if instance.context.part(Running).begin(instance, self._script):
                self._begun.append(instance)
        return None

    def _count(self) -> tuple[int, int]:
        """Count the running and the failed invocations; forget those that succeeded."""
        states = {instance: self._status(instance) for instance in self._begun}
        self._begun = [instance for instance, state in states.items() if state != "Success"]
        active = sum(state in ("Pending", "InProgress") for state in states.values())
        return active, len(self._begun) - active

    def _status(self, instance: Instance) -> str:
        record = instance.context.store.get(KIND, instance.region, f"{self._script.command_id}/{instance.id}")
        return str(record.document["Status"])

    def _skip(self, end: Document) -> None:
        while self._waiting:
            instance = self._waiting.popleft()
            instance.context.part(Running).skip(instance, f"{self._script.command_id}/{instance.id}", end)
