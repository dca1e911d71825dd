"""Where jobs and models may talk to, and with which key their disks are encrypted: what every request shares."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Instance types with disks of their own (EC2: instance store volumes) encrypt those in hardware, and SageMaker
# refuses a volume key for them: the families with a "d" behind their number, and these.
_OWN_DISKS = re.compile(r"^ml\.([a-z]+\d+[a-z]*d[a-z]*|g5|g6e?|gr6|p5e?n?|p6.*|trn\d.*|inf2)\.")


@dataclass(frozen=True)
class Network:
    """The network of jobs and models; by default SageMaker's own, with the internet behind it.

    Attributes:
        subnet_ids: Subnets of your VPC, up to 16; none: outside any VPC.
        security_group_ids: Security groups in that VPC, 1 to 5.
        volume_key: KMS key (id, ARN or alias) of the disks.
        isolated: Containers of jobs reach nothing, not even S3; SageMaker moves their data. Models always are.
        encrypt_traffic: Encrypt what several machines of one job say to each other; it may take longer.
    """

    subnet_ids: Sequence[str] = ()
    security_group_ids: Sequence[str] = ()
    volume_key: str | None = None
    isolated: bool = False
    encrypt_traffic: bool = False

    def __post_init__(self) -> None:
        if bool(self.subnet_ids) != bool(self.security_group_ids):
            raise ValueError("subnets and security groups of jobs go together: set both or none")
        if len(self.subnet_ids) > 16 or len(self.security_group_ids) > 5:
            raise ValueError("a job takes at most 16 subnets and 5 security groups")

    @property
    def vpc(self) -> dict[str, list[str]] | None:
        """VpcConfig, or None outside a VPC."""
        if not self.subnet_ids:
            return None
        return {"SecurityGroupIds": list(self.security_group_ids), "Subnets": list(self.subnet_ids)}

    def training(self) -> dict[str, Any]:
        """What CreateTrainingJob, and the training job definition of a tuning job, take on their top level."""
        settings: dict[str, Any] = {"VpcConfig": self.vpc} if self.vpc else {}
        if self.isolated:
            settings["EnableNetworkIsolation"] = True
        if self.encrypt_traffic:
            settings["EnableInterContainerTrafficEncryption"] = True
        return settings

    def processing(self) -> dict[str, Any]:
        """NetworkConfig of CreateProcessingJob; the same words one level down."""
        settings = self.training()
        return {"NetworkConfig": settings} if settings else {}

    def volume(self, instance_type: str, name: str = "VolumeKmsKeyId") -> dict[str, str]:
        """The key of the disks of `instance_type`, under the `name` that the request has for it."""
        if self.volume_key is None or _OWN_DISKS.match(instance_type):
            return {}
        return {name: self.volume_key}


OPEN = Network()
