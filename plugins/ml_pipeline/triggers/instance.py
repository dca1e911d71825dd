"""Wait until an EC2 instance runs and SSM can reach it."""

from __future__ import annotations

from dataclasses import dataclass

from ml_pipeline.aws.clients import Client
from ml_pipeline.triggers.base import Event, PollingTrigger
from ml_pipeline.triggers.clients import Clients

_GONE = frozenset({"shutting-down", "terminated", "stopping", "stopped"})


@dataclass(eq=False, repr=False, kw_only=True)
class InstanceTrigger(PollingTrigger):
    """Fire with `{"instance_id", "state"}`: state "online", or the state in which the instance is gone."""

    instance_id: str

    @property
    def subject(self) -> str:
        """The instance."""
        return f"instance {self.instance_id}"

    async def poll(self, clients: Clients) -> Event | None:
        """Look at EC2, then at SSM."""
        state = await self._state(await clients.get("ec2"), await clients.get("ssm"))
        if state == "online" or state in _GONE:
            return {"instance_id": self.instance_id, "state": state}
        return None

    async def stop(self, clients: Clients) -> None:
        """Terminate the instance."""
        ec2 = await clients.get("ec2")
        await ec2.terminate_instances(InstanceIds=[self.instance_id])

    async def _state(self, ec2: Client, ssm: Client) -> str:
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
