"""The SSM operations implemented here, the instances they reach, and the running commands."""

from __future__ import annotations

import threading
import time

from local_aws.context import Context
from local_aws.ec2.instance import Instance
from local_aws.ec2.instances import Instances
from local_aws.ec2.run_command import KIND, Invocation, Script
from local_aws.gateway.json_service import Operations
from local_aws.state.resources import Document

operation = Operations("ssm")


class Running:
    """The running commands of one local_aws (`context.part(Running)`).

    Thread-safe: a command is started, skipped or cancelled, and never two of these.
    """

    def __init__(self) -> None:
        self.instances: Instances | None = None
        self._invocations: dict[str, Invocation] = {}
        self._lock = threading.Lock()

    @property
    def on(self) -> Instances:
        """The instances that commands reach."""
        assert self.instances is not None, "SSM is built before it answers"
        return self.instances

    def begin(self, instance: Instance, script: Script) -> bool:
        """Start a command; False when it was cancelled before."""
        with self._lock:
            if not _is_pending(instance.context, instance.region, f"{script.command_id}/{instance.id}"):
                return False
            self._invocations = {name: known for name, known in self._invocations.items() if known.alive}
            invocation = Invocation(instance, script)
            self._invocations[invocation.name] = invocation
            return True

    def skip(self, instance: Instance, name: str, end: Document) -> None:
        """Record the end of a command that never started."""
        with self._lock:
            _end(instance.context, instance.region, name, end)

    def cancel(self, context: Context, region: str, name: str) -> None:
        """End a command early, whether or not it has started."""
        with self._lock:
            invocation = self._invocations.get(name)
            if invocation is not None:
                invocation.cancel()
            else:
                _end(context, region, name, {"Status": "Cancelled", "StatusDetails": "Cancelled"})

    def join(self) -> None:
        """Wait for all commands."""
        with self._lock:
            invocations = list(self._invocations.values())
        for invocation in invocations:
            invocation.join(5)


def _is_pending(context: Context, region: str, name: str) -> bool:
    return bool(context.store.get(KIND, region, name).document["Status"] == "Pending")


def _end(context: Context, region: str, name: str, end: Document) -> None:
    if _is_pending(context, region, name):
        context.store.update(
            KIND, region, name, lambda document: document.update({**end, "Ended": time.time()})
        )
