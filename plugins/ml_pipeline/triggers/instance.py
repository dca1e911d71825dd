"""Wait until an EC2 instance runs and SSM can reach it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from ml_pipeline.aws.clients import AwsAccess
from ml_pipeline.errors import is_transient
from ml_pipeline.triggers.ownership import even_if_late, task_is_over

_GONE = frozenset({"shutting-down", "terminated", "stopping", "stopped"})


class InstanceTrigger(BaseTrigger):
    """Fires once: `{"instance_id", "state"}`, with state "online" or the state in which the instance is gone.

    :param instance_id: the instance.
    :param poll_seconds: pause between two looks.
    :param access: fields of `AwsAccess`.
    """

    def __init__(self, instance_id: str, poll_seconds: float, access: dict[str, Any]) -> None:
        super().__init__()
        self.instance_id = instance_id
        self.poll_seconds = poll_seconds
        self.access = AwsAccess(**access)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class path and the arguments that make an equal trigger in another process."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "instance_id": self.instance_id,
                "poll_seconds": self.poll_seconds,
                "access": self.access.to_dict(),
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll EC2, then SSM."""
        async with (
            await self.access.async_client("ec2") as ec2,
            await self.access.async_client("ssm") as ssm,
        ):
            while True:
                try:
                    state = await self._state(ec2, ssm)
                except Exception as error:
                    if not is_transient(error):
                        raise
                    self.log.warning("%s; asking again in %.0f s", error, self.poll_seconds)
                else:
                    if state == "online" or state in _GONE:
                        yield TriggerEvent({"instance_id": self.instance_id, "state": state})
                        return
                await asyncio.sleep(self.poll_seconds)

    async def on_kill(self) -> None:
        """Terminate the instance if its task is over; leave it to the next try otherwise."""
        await even_if_late(self._stop_if_over())

    async def _stop_if_over(self) -> None:
        if await task_is_over(self.task_instance):
            self.log.info("terminating %s: nobody waits for it any more", self.instance_id)
            async with await self.access.async_client("ec2") as ec2:
                await ec2.terminate_instances(InstanceIds=[self.instance_id])

    async def _state(self, ec2: Any, ssm: Any) -> str:
        from botocore.exceptions import ClientError

        try:
            response = await ec2.describe_instances(InstanceIds=[self.instance_id])
        except ClientError as error:
            # RunInstances answers before every replica of EC2's API knows the instance.
            if error.response["Error"]["Code"] == "InvalidInstanceID.NotFound":
                return "pending"
            raise
        state = str(response["Reservations"][0]["Instances"][0]["State"]["Name"])
        if state != "running":
            return state
        known = await ssm.describe_instance_information(
            Filters=[{"Key": "InstanceIds", "Values": [self.instance_id]}]
        )
        online = any(entry["PingStatus"] == "Online" for entry in known["InstanceInformationList"])
        return "online" if online else state
