"""A real local_aws in the background, its clients, and the requests that many tests send."""

from __future__ import annotations

import io
import json
import os
import signal
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from local_aws import cli
from local_aws.context import Key
from local_aws.iam.credentials import root_key
from local_aws.state import folder as state_folder

IMAGES = Path(__file__).with_name("images.toml")
TRAINING_IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch:2.13-cpu-amzn2023-sagemaker"
ROLE = "arn:aws:iam::123456789012:role/sagemaker"
ENDED = ("Completed", "Failed", "Stopped")


def eventually(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """The first true value of `condition`; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.03)
    return value


@dataclass
class Cloud:
    """A running local_aws and clients of it."""

    state: Path
    options: tuple[str, ...] = ()
    _clients: dict[tuple[str, str], Any] = field(default_factory=dict)

    def start(self) -> Cloud:
        """Start it in the background, as a user does."""
        argv = ["start", "--state", str(self.state), "--images", str(IMAGES), "--port", "0", *self.options]
        assert cli.main(argv) == 0, (self.state / state_folder.LOG).read_text()
        self._clients.clear()
        return self

    def stop(self) -> None:
        """Stop it if it runs."""
        cli.stop(self.state)

    def kill(self) -> None:
        """Kill it (-9), and wait until the kernel has released the lock."""
        pid = state_folder.read_number(self.state / state_folder.PID)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not state_folder.is_locked(self.state))

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{state_folder.read_number(self.state / state_folder.PORT)}"

    @property
    def key(self) -> Key:
        """The credentials of its clients."""
        return Key("any", "credentials")

    def client(self, service: str, region: str = "us-east-1") -> Any:
        """A boto3 client given no more than an address, credentials and a region."""
        if (service, region) not in self._clients:
            self._clients[(service, region)] = boto3.client(
                service,
                endpoint_url=self.url,
                region_name=region,
                aws_access_key_id=self.key.id,
                aws_secret_access_key=self.key.secret,
                config=Config(retries={"max_attempts": 1}),
            )
        return self._clients[(service, region)]

    @property
    def sagemaker(self) -> Any:
        """The SageMaker client."""
        return self.client("sagemaker")

    @property
    def s3(self) -> Any:
        """The S3 client."""
        return self.client("s3")

    def bucket(self) -> str:
        """A new bucket's name."""
        name = unique("bucket")
        self.s3.create_bucket(Bucket=name)
        return name

    def put_code(self, bucket: str, **files: str) -> str:
        """Upload a sourcedir.tar.gz of `name=source` files (.py is added); its URI."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for name, source in files.items():
                member = tarfile.TarInfo(f"{name}.py")
                member.size = len(source.encode())
                archive.addfile(member, io.BytesIO(source.encode()))
        self.s3.put_object(Bucket=bucket, Key="code/sourcedir.tar.gz", Body=packed.getvalue())
        return f"s3://{bucket}/code/sourcedir.tar.gz"

    def training_ended(self, name: str, seconds: float = 40.0) -> dict[str, Any]:
        """Wait for a training job's end; its description."""

        def ended() -> Any:
            description = self.sagemaker.describe_training_job(TrainingJobName=name)
            return description if description["TrainingJobStatus"] in ENDED else None

        return dict(eventually(ended, seconds))

    def training_reaches(self, name: str, secondary: str) -> None:
        """Wait until a training job is in a secondary status."""
        eventually(
            lambda: self.sagemaker.describe_training_job(TrainingJobName=name)["SecondaryStatus"] == secondary
        )

    def log_of(self, name: str, group: str = "/aws/sagemaker/TrainingJobs") -> list[str]:
        """Every line of a job."""
        logs = self.client("logs")
        try:
            streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/")[
                "logStreams"
            ]
        except logs.exceptions.ResourceNotFoundException:
            return []
        return [
            event["message"]
            for stream in streams
            for event in logs.get_log_events(
                logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True
            )["events"]
        ]


class Signing(Cloud):
    """A local_aws that verifies signatures, used with its own key."""

    @property
    def key(self) -> Key:
        """The key of its state folder."""
        return root_key(self.state)


def unique(prefix: str) -> str:
    """Return a name that no other test uses."""
    return f"{prefix}-{uuid.uuid4().hex[:10]}"


def training_request(name: str, bucket: str, code: str, **hyperparameters: Any) -> dict[str, Any]:
    """A script-mode CreateTrainingJob request, hyperparameters JSON-encoded as the SDK does."""
    return {
        "TrainingJobName": name,
        "RoleArn": ROLE,
        "AlgorithmSpecification": {"TrainingImage": TRAINING_IMAGE, "TrainingInputMode": "File"},
        "HyperParameters": {
            "sagemaker_program": json.dumps("train.py"),
            "sagemaker_submit_directory": json.dumps(code),
            **{key: json.dumps(value) for key, value in hyperparameters.items()},
        },
        "OutputDataConfig": {"S3OutputPath": f"s3://{bucket}/output"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 300},
    }


def channel(name: str, uri: str, data_type: str = "S3Prefix", sharded: bool = False) -> dict[str, Any]:
    """One InputDataConfig entry."""
    distribution = "ShardedByS3Key" if sharded else "FullyReplicated"
    source = {"S3DataType": data_type, "S3Uri": uri, "S3DataDistributionType": distribution}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """One local_aws with 4 cores for all tests that leave it running."""
    running = Cloud(tmp_path_factory.mktemp("cloud"), ("--cores", "4", "--quota", "ml.p3.2xlarge=1")).start()
    yield running
    running.stop()
