"""The instances and the channels of a job of any kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

from ml_pipeline.requests import disks, preferences
from ml_pipeline.requests.types import Document

_HOUR = 3600
# SageMaker's default limit of a job, and its highest limit of a training job.
DEFAULT_HOURS = 24
LONGEST_HOURS = 28 * 24
# `MOST_BYTES` of model_code.train.finetune.staging, which needs torch.
_STAGED_BYTES = 64 * 2**30


class DataType(StrEnum):
    """The way SageMaker reads an input's URI."""

    PREFIX = "S3Prefix"
    MANIFEST = "ManifestFile"


class Distribution(StrEnum):
    """The part of an input that each of several instances gets."""

    FULL = "FullyReplicated"
    SHARDED = "ShardedByS3Key"


class Mode(StrEnum):
    """The way the files of a training job's channel come to it: to the disk before it starts, or as they are read."""

    FILE = "File"
    FAST_FILE = "FastFile"


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
        prefix: What FastFile mode mounts for it, since it takes no manifests: a prefix under which its objects are
            among others. Empty: it needs to be on the disk.
        mode: See `Mode`.
    """

    name: str
    uri: str
    data_type: DataType = DataType.PREFIX
    distribution: Distribution = Distribution.FULL
    bytes: int = 0
    prefix: str = ""
    mode: Mode = Mode.FILE

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
            "InputMode": self.mode.value,
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


def in_place(compute: Compute, channels: Sequence[Channel]) -> list[Channel]:
    """Leave the photos of a training job in S3 where the disk of its instances cannot hold all channels.

    Only training jobs have FastFile mode. It mounts prefixes, not manifests, so the job sees all shards of the data set
    and reads those that manifest.json lists.
    """
    needed = disks.needed_gb(compute.volume_gb, _bytes(compute, channels, Mode.FILE))
    if needed <= disks.largest_gb(compute.instance_type):
        return list(channels)
    return [
        replace(channel, uri=channel.prefix, data_type=DataType.PREFIX, mode=Mode.FAST_FILE)
        if channel.prefix
        else channel
        for channel in channels
    ]


def disk_of(compute: Compute, channels: Sequence[Channel]) -> int:
    """Return the disk of each instance, in GB: SageMaker copies the channels in File mode to it before the job starts.

    Of those in FastFile mode, training keeps copies of the shards that it reads next. An instance with a disk of its
    own has that one, and the sizes of embeddings are upper bounds: it is never asked for more, and never refused.

    Raises:
        ValueError: No disk is large enough.
    """
    inputs = _bytes(compute, channels, Mode.FILE)
    inputs += min(_bytes(compute, channels, Mode.FAST_FILE), _STAGED_BYTES)
    own = disks.own_gb(compute.instance_type)
    if own is None:
        return disks.disk_gb(compute.volume_gb, inputs)
    return min(own, disks.needed_gb(compute.volume_gb, inputs))


def _bytes(compute: Compute, channels: Sequence[Channel], mode: Mode) -> float:
    """Return the bytes of the channels in one mode that come to each instance."""
    parts = {Distribution.FULL: 1, Distribution.SHARDED: compute.instance_count}
    return sum(channel.bytes / parts[channel.distribution] for channel in channels if channel.mode is mode)
