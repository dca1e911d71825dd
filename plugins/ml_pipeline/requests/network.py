"""The network of jobs and models, and the key of their disks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ml_pipeline.requests import preferences
from ml_pipeline.requests.disks import has_own
from ml_pipeline.requests.types import Document


@dataclass(frozen=True)
class Network:
    """The network of jobs and models; by default SageMaker's own, with access to the internet.

    Attributes:
        subnet_ids: Subnets of your VPC, up to 16; none: outside any VPC.
        security_group_ids: Security groups in that VPC, 1 to 5.
        volume_key: KMS key (id, ARN or alias) of the disks.
        isolated: Containers of jobs reach nothing, not even S3; SageMaker moves their data. Models are always isolated.
        encrypt_traffic: Encrypt the traffic between the instances of a job; it may take longer.
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

    def training(self) -> Document:
        """Return the top-level keys of CreateTrainingJob and of the definition in a tuning job."""
        settings: Document = {"VpcConfig": self.vpc} if self.vpc else {}
        if self.isolated:
            settings["EnableNetworkIsolation"] = True
        if self.encrypt_traffic:
            settings["EnableInterContainerTrafficEncryption"] = True
        return settings

    def processing(self) -> Document:
        """Return the NetworkConfig of CreateProcessingJob: the same keys one level down."""
        settings = self.training()
        return {"NetworkConfig": settings} if settings else {}

    def volume(self, instance_type: str, name: str = "VolumeKmsKeyId") -> dict[str, str]:
        """Return the key of the disks of `instance_type`, under its `name` in the request.

        SageMaker refuses one for instances with disks of their own, which encrypt themselves.

        Raises:
            ValueError: Only some of several instance types take a key.
        """
        own = [has_own(each) for each in preferences.split(instance_type)]
        if self.volume_key is None or all(own):
            return {}
        if any(own):
            raise ValueError(
                f"{instance_type}: with a volume key, choose only types with local disks, or only types without"
            )
        return {name: self.volume_key}


OPEN = Network()
