"""Wait for a Run Command on one instance. The stock trigger lists invocations once and takes an empty list,
which is what SSM answers just after SendCommand, for success; this one waits until there is an invocation.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from ml_pipeline.aws.clients import AwsAccess
from ml_pipeline.aws.log_tail import LogTail
from ml_pipeline.errors import is_transient
from ml_pipeline.requests.instance import LOG_GROUP
from ml_pipeline.triggers.ownership import even_if_late, task_is_over

_ENDED = frozenset({"Success", "Failed", "Cancelled", "TimedOut"})


class CommandTrigger(BaseTrigger):
    """Fires once: `{"command_id", "status", "exit_code", "error"}`.

    :param command_id: the command.
    :param instance_id: the instance it was sent to.
    :param poll_seconds: pause between two looks.
    :param access: fields of `AwsAccess`.
    """

    def __init__(
        self, command_id: str, instance_id: str, poll_seconds: float, access: dict[str, Any]
    ) -> None:
        super().__init__()
        self.command_id = command_id
        self.instance_id = instance_id
        self.poll_seconds = poll_seconds
        self.access = AwsAccess(**access)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class path and the arguments that make an equal trigger in another process."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "command_id": self.command_id,
                "instance_id": self.instance_id,
                "poll_seconds": self.poll_seconds,
                "access": self.access.to_dict(),
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until the command has ended on the instance."""
        async with (
            await self.access.async_client("ssm") as ssm,
            await self.access.async_client("logs") as logs,
        ):
            # GetCommandInvocation shows the first 24,000 characters, and those only at the end.
            tail = LogTail(logs, LOG_GROUP, f"{self.command_id}/{self.instance_id}/")
            while True:
                try:
                    found = await self._invocation(ssm)
                    for line in await tail.read():
                        self.log.info("%s", line)
                except Exception as error:
                    if not is_transient(error):
                        raise
                    self.log.warning("%s; asking again in %.0f s", error, self.poll_seconds)
                else:
                    if found.get("Status") in _ENDED:
                        yield TriggerEvent(
                            {
                                "command_id": self.command_id,
                                "status": found["Status"],
                                "exit_code": found.get("ResponseCode", -1),
                                "error": found.get("StandardErrorContent", "")[-1000:],
                            }
                        )
                        return
                await asyncio.sleep(self.poll_seconds)

    async def on_kill(self) -> None:
        """Cancel the command if its task is over; leave it to the next try otherwise."""
        await even_if_late(self._stop_if_over())

    async def _stop_if_over(self) -> None:
        if await task_is_over(self.task_instance):
            self.log.info("cancelling command %s: nobody waits for it any more", self.command_id)
            async with await self.access.async_client("ssm") as ssm:
                await ssm.cancel_command(CommandId=self.command_id)

    async def _invocation(self, ssm: Any) -> dict[str, Any]:
        from botocore.exceptions import ClientError

        try:
            response: dict[str, Any] = await ssm.get_command_invocation(
                CommandId=self.command_id, InstanceId=self.instance_id
            )
        except ClientError as error:
            if error.response["Error"]["Code"] == "InvocationDoesNotExist":
                return {}
            raise
        return response
