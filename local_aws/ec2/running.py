"""The operations of SSM that are ours, the instances they reach, and the commands that run now."""

from __future__ import annotations

from local_aws.ec2.instance import Instance
from local_aws.ec2.instances import Instances
from local_aws.ec2.run_command import Invocation, Script
from local_aws.json_service import Operations

operation = Operations("ssm")


class Running:
    """The commands that run in this process."""

    def __init__(self) -> None:
        self.instances: Instances | None = None
        self._invocations: dict[str, Invocation] = {}

    @property
    def on(self) -> Instances:
        """The instances of this process."""
        assert self.instances is not None, "SSM is built before it is asked"
        return self.instances

    def begin(self, instance: Instance, script: Script) -> None:
        """Start one."""
        self._invocations = {name: known for name, known in self._invocations.items() if known.alive}
        invocation = Invocation(instance, script)
        self._invocations[invocation.name] = invocation

    def cancel(self, name: str) -> None:
        """End one early."""
        invocation = self._invocations.get(name)
        if invocation is not None:
            invocation.cancel()

    def join(self) -> None:
        """Wait for all."""
        for invocation in list(self._invocations.values()):
            invocation.join(5)


RUNNING = Running()
