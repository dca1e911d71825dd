"""The instances and the channels of a job of any kind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from ml_pipeline.requests import preferences
from ml_pipeline.requests.types import Document

_HOUR = 3600
# SageMaker's default limit of a job, and its highest limit of a training job.
DEFAULT_HOURS = 24
LONGEST_HOURS = 28 * 24
# Of a disk of the default size, what image, code, checkpoints and output leave to the inputs.
_ROOM_GB = 10
_LARGEST_DISK_GB = 16_384


class DataType(StrEnum):
    """The way SageMaker reads an input's URI."""

    PREFIX = "S3Prefix"
    MANIFEST = "ManifestFile"


class Distribution(StrEnum):
    """The part of an input that each of several instances gets."""

    FULL = "FullyReplicated"
    SHARDED = "ShardedByS3Key"


@dataclass(frozen=True)
class Compute:
    """The instances of a job.

    Attributes:
        instance_type: "ml.m5.xlarge"; for training also several, see `preferences`.
        instance_count: Instances, 1-100.
        volume_gb: Disk of each instance, before room for large inputs; see `disk_of`.
        max_runtime_seconds: SageMaker stops the job after this, all attempts together.
        spot: Managed spot: cheaper, may be interrupted, resumes from its checkpoint.
        max_wait_seconds: With spot: limit of run time and waiting together; defaults to twice the run time.
        keep_alive_seconds: Time that the instances stay warm for the next job, 0-3600; billed.
    """

    instance_type: str
    instance_count: int = 1
    volume_gb: int = 30
    max_runtime_seconds: int = DEFAULT_HOURS * _HOUR
    spot: bool = False
    max_wait_seconds: int | None = None
    keep_alive_seconds: int = 0

    def __post_init__(self) -> None:
        types = preferences.split(self.instance_type)
        for name in types:
            if not name.startswith("ml."):
                raise ValueError(f"SageMaker has no instance type {name!r}; write ml.{name}")
        if len(types) > 1 and (self.spot or self.keep_alive_seconds):
            # CreateTrainingJob takes InstancePreferences for instances on demand only.
            raise ValueError(
                f"{self.instance_type} with spot or keep_alive: SageMaker takes several instance types only without"
            )
        if not 1 <= self.instance_count <= 100:
            raise ValueError(f"instance_count is {self.instance_count}; choose 1 to 100")
        if not 0 <= self.keep_alive_seconds <= 3600:
            raise ValueError(f"keep_alive is {self.keep_alive_seconds} s; SageMaker takes 0 to 3600")
        if not 1 <= self.max_runtime_seconds <= LONGEST_HOURS * _HOUR:
            raise ValueError(
                f"SageMaker does not accept a runtime of {self.max_runtime_seconds} s; choose max_job_hours up to "
                f"{LONGEST_HOURS}"
            )
        if self.spot and self.keep_alive_seconds:
            raise ValueError("spot instances cannot be kept alive; turn off spot or keep_alive")
        if self.spot and self.wait_seconds < self.max_runtime_seconds:
            raise ValueError("max_wait_seconds must be at least max_runtime_seconds")

    @classmethod
    def of_params(
        cls,
        instance_type: str,
        instance_count: int | str,
        max_job_hours: float | str,
        spot: bool,
        keep_alive: int | str,
    ) -> Self:
        """Build the instances of a training from params, as a form, a template or JSON gives them."""
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

    def resource_config(self, channels: Sequence[Channel] = ()) -> Document:
        """Return the ResourceConfig of a training job that reads `channels`."""
        config: Document = {
            **preferences.of_training(self.instance_type),
            "InstanceCount": self.instance_count,
            "VolumeSizeInGB": disk_of(self, channels),
        }
        if self.keep_alive_seconds:
            config["KeepAlivePeriodInSeconds"] = self.keep_alive_seconds
        return config

    def stopping_condition(self) -> dict[str, int]:
        """Return the StoppingCondition of a training job.

        Without spot, SageMaker refuses MaxWaitTimeInSeconds (sagemaker-python-sdk#4140).
        """
        condition = {"MaxRuntimeInSeconds": self.max_runtime_seconds}
        if self.spot:
            condition["MaxWaitTimeInSeconds"] = self.wait_seconds
        return condition


def seconds(hours: float | str) -> int:
    """Convert `hours`, as a param gives them, to whole seconds."""
    return round(float(hours) * _HOUR)


@dataclass(frozen=True)
class Channel:
    """One named input of a job: an object or prefix, or a ManifestFile that lists objects.

    Attributes:
        bytes: Size of its objects together, and of what the job writes of them; 0 where that is small.
    """

    name: str
    uri: str
    data_type: DataType = DataType.PREFIX
    distribution: Distribution = Distribution.FULL
    bytes: int = 0

    def __post_init__(self) -> None:
        if not self.uri.startswith("s3://"):
            raise ValueError(f"channel {self.name} reads {self.uri!r}; give an s3:// URI")

    def training_input(self) -> Document:
        """Return the channel for InputDataConfig of a training job."""
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

    def processing_input(self) -> Document:
        """Return the channel for ProcessingInputs, under /opt/ml/processing/input/<name>."""
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


def disk_of(compute: Compute, channels: Sequence[Channel]) -> int:
    """Return the disk of each instance, in GB: SageMaker copies every channel to it before the job starts."""
    parts = {Distribution.FULL: 1, Distribution.SHARDED: compute.instance_count}
    inputs = sum(channel.bytes / parts[channel.distribution] for channel in channels)
    return disk_gb(compute.volume_gb, inputs)


def disk_gb(least_gb: int, inputs: float) -> int:
    """Return the size of a disk, in GB, with room for `inputs` bytes.

    Raises:
        ValueError: No disk is large enough.
    """
    # A tenth more: files take whole blocks, and shards of different size spread unevenly.
    size = least_gb + max(0, math.ceil(inputs * 11 / (10 * 2**30)) - _ROOM_GB)
    if size > _LARGEST_DISK_GB:
        raise ValueError(
            f"each instance would need a disk of {size} GB, and the largest has {_LARGEST_DISK_GB}: take more "
            "instances, or fewer photos"
        )
    return size
