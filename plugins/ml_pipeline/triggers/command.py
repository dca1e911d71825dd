"""Wait for a Run Command on one instance.

The stock trigger lists invocations once and takes an empty list, which is what SSM answers just after SendCommand, for
success; this one waits until there is an invocation.
"""

from __future__ import annotations

from dataclasses import dataclass

from ml_pipeline.aws.clients import Client
from ml_pipeline.aws.log_tail import LogTail
from ml_pipeline.requests.instance import LOG_GROUP
from ml_pipeline.requests.types import Document
from ml_pipeline.triggers.base import Event, PollingTrigger
from ml_pipeline.triggers.clients import Clients

_ENDED = frozenset({"Success", "Failed", "Cancelled", "TimedOut"})


@dataclass(eq=False, repr=False, kw_only=True)
class CommandTrigger(PollingTrigger):
    """Fire when the command has ended: `{"command_id", "status", "exit_code", "error"}`.

    Args:
        command_id: The command.
        instance_id: The instance that it was sent to.
    """

    command_id: str
    instance_id: str

    def __post_init__(self) -> None:
        super().__post_init__()
        # GetCommandInvocation shows the first 24,000 characters, and those only at the end.
        self._tail = LogTail(LOG_GROUP, f"{self.command_id}/{self.instance_id}/")

    @property
    def subject(self) -> str:
        """The command and its instance."""
        return f"command {self.command_id} on {self.instance_id}"

    async def poll(self, clients: Clients) -> Event | None:
        """Look at the invocation and pass new log lines on."""
        found = await self._invocation(await clients.get("ssm"))
        await self.pass_on(self._tail, clients)
        if found.get("Status") not in _ENDED:
            return None
        return {
            "command_id": self.command_id,
            "status": found["Status"],
            "exit_code": found.get("ResponseCode", -1),
            "error": found.get("StandardErrorContent", "")[-1000:],
        }

    async def stop(self, clients: Clients) -> None:
        """Cancel the command."""
        ssm = await clients.get("ssm")
        await ssm.cancel_command(CommandId=self.command_id)

    async def _invocation(self, ssm: Client) -> Document:
        from botocore.exceptions import ClientError

        try:
            response: Document = await ssm.get_command_invocation(
                CommandId=self.command_id, InstanceId=self.instance_id
            )
        except ClientError as error:
            if error.response["Error"]["Code"] == "InvocationDoesNotExist":
                return {}
            raise
        return response
