"""EC2 instances of a test and the commands they run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.local_aws.cloud import Cloud, eventually

ENDED = ("Success", "Failed", "TimedOut", "Cancelled")
IMAGE = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-amazon-linux-2023/latest/ami-id"


class Machines:
    """Instances of a test; ended with it."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.ec2, self.ssm = cloud.client("ec2"), cloud.client("ssm")
        self.image = self.ssm.get_parameter(Name=IMAGE)["Parameter"]["Value"]
        self.ids: list[str] = []

    def run(self, user_data: str = "", **more: Any) -> str:
        request = {"ImageId": self.image, "InstanceType": "m5.large", "MinCount": 1, "MaxCount": 1, **more}
        if user_data:
            request["UserData"] = user_data
        name = str(self.ec2.run_instances(**request)["Instances"][0]["InstanceId"])
        self.ids.append(name)
        return name

    def state(self, name: str) -> str:
        found = self.ec2.describe_instances(InstanceIds=[name])
        return str(found["Reservations"][0]["Instances"][0]["State"]["Name"])

    def folder(self, name: str) -> Path:
        return self.cloud.state / "instances" / name

    def send(
        self, name: str, *commands: str, parameters: dict[str, list[str]] | None = None, **more: Any
    ) -> str:
        sent = self.ssm.send_command(
            DocumentName="AWS-RunShellScript",
            InstanceIds=[name],
            Parameters={"commands": list(commands), **(parameters or {})},
            **more,
        )
        return str(sent["Command"]["CommandId"])

    def result(self, command: str, name: str, seconds: float = 30) -> dict[str, Any]:
        def ended() -> Any:
            found = self.ssm.get_command_invocation(CommandId=command, InstanceId=name)
            return found if found["Status"] in ENDED else None

        return dict(eventually(ended, seconds))

    def shell(self, name: str, *commands: str, **more: Any) -> dict[str, Any]:
        return self.result(self.send(name, *commands, **more), name)
