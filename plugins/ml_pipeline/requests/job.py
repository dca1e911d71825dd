"""What every kind of job shares: the machines it runs on and the channels it reads."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

_HOUR = 3600
# SageMaker lets a job run this long when nobody says otherwise, and a training job this long at most.
DEFAULT_HOURS = 24
LONGEST_HOURS = 28 * 24


class DataType(StrEnum):
    """How SageMaker reads an input's URI."""

    PREFIX = "S3Prefix"
    MANIFEST = "ManifestFile"


class Distribution(StrEnum):
    """What each of several instances gets of an input."""

    FULL = "FullyReplicated"
    SHARDED = "ShardedByS3Key"


@dataclass(frozen=True)
class Compute:
    """The machines of a job.

    Attributes:
        instance_type: "ml.m5.xlarge".
        instance_count: Machines, 1-100.
        volume_gb: Disk of each machine.
        max_runtime_seconds: SageMaker stops the job after this, all attempts together.
        spot: Managed spot: cheaper, may be interrupted, resumes from its checkpoint.
        max_wait_seconds: With spot: run time and waiting together; defaults to twice the run time.
        keep_alive_seconds: Keep the machines warm for the next job, 0-3600; billed.
    """

    instance_type: str
    instance_count: int = 1
    volume_gb: int = 30
    max_runtime_seconds: int = DEFAULT_HOURS * _HOUR
    spot: bool = False
    max_wait_seconds: int | None = None
    keep_alive_seconds: int = 0

    def __post_init__(self) -> None:
        if not self.instance_type.startswith("ml."):
            raise ValueError(
                f"instance type {self.instance_type!r} is not SageMaker's; write ml.{self.instance_type}"
            )
        if not 1 <= self.instance_count <= 100:
            raise ValueError(f"instance_count is {self.instance_count}; choose 1 to 100")
        if not 0 <= self.keep_alive_seconds <= 3600:
            raise ValueError(f"keep_alive is {self.keep_alive_seconds} s; SageMaker takes 0 to 3600")
        if not 1 <= self.max_runtime_seconds <= LONGEST_HOURS * _HOUR:
            raise ValueError(
                f"a job of {self.max_runtime_seconds} s is none that SageMaker runs; choose max_job_hours up to "
                f"{LONGEST_HOURS}"
            )
        if self.spot and self.keep_alive_seconds:
            raise ValueError("spot machines cannot be kept alive; turn off spot or keep_alive")
        if self.spot and self.wait_seconds < self.max_runtime_seconds:
            raise ValueError("max_wait_seconds must be at least max_runtime_seconds")

    @classmethod
    def of_params(
        cls, instance_type: str, instance_count: Any, max_job_hours: Any, spot: Any, keep_alive: Any
    ) -> Self:
        """The machines of a training, from params as the form, a template or JSON gives them."""
        return cls(
            instance_type,
            int(instance_count),
            max_runtime_seconds=seconds(max_job_hours),
            spot=bool(spot),
            keep_alive_seconds=int(keep_alive),
        )

    @property
    def wait_seconds(self) -> int:
        """Longest time from creation to end with spot."""
        return self.max_wait_seconds or 2 * self.max_runtime_seconds

    def resource_config(self) -> dict[str, Any]:
        """ResourceConfig of a training job."""
        config: dict[str, Any] = {
            "InstanceType": self.instance_type,
            "InstanceCount": self.instance_count,
            "VolumeSizeInGB": self.volume_gb,
        }
        if self.keep_alive_seconds:
            config["KeepAlivePeriodInSeconds"] = self.keep_alive_seconds
        return config

    def stopping_condition(self) -> dict[str, int]:
        """StoppingCondition of a training job; MaxWait is refused without spot
        (sagemaker-python-sdk#4140).
        """
        condition = {"MaxRuntimeInSeconds": self.max_runtime_seconds}
        if self.spot:
            condition["MaxWaitTimeInSeconds"] = self.wait_seconds
        return condition


def seconds(hours: Any) -> int:
    """Whole seconds of `hours`, a number as a param gives it."""
    return round(float(hours) * _HOUR)


@dataclass(frozen=True)
class Channel:
    """One named input of a job: an object or prefix, or a ManifestFile that lists objects."""

    name: str
    uri: str
    data_type: DataType = DataType.PREFIX
    distribution: Distribution = Distribution.FULL

    def __post_init__(self) -> None:
        if not self.uri.startswith("s3://"):
            raise ValueError(f"channel {self.name} reads {self.uri!r}; give an s3:// URI")

    def training_input(self) -> dict[str, Any]:
        """The channel in InputDataConfig of a training job."""
        return {
            "ChannelName": self.name,
            "DataSource": {
                "S3DataSource": {
                    "S3DataType": self.data_type.value,
                    "S3Uri": self.uri,
                    "S3DataDistributionType": self.distribution.value,
                }
            },
            "InputMode": "File",
        }

    def processing_input(self) -> dict[str, Any]:
        """The channel in ProcessingInputs, under /opt/ml/processing/input/<name>."""
        return {
            "InputName": self.name,
            "S3Input": {
                "S3Uri": self.uri,
                "LocalPath": f"/opt/ml/processing/input/{self.name}",
                "S3DataType": self.data_type.value,
                "S3InputMode": "File",
                "S3DataDistributionType": self.distribution.value,
                "S3CompressionType": "None",
            },
        }
