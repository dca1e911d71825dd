"""The one reader of settings: environment variables in, a checked `Settings` out.

Nothing else in the project reads ML_PIPELINE_* or LOCAL_AWS_URL on the Airflow side.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ml_pipeline.requests.network import OPEN, Network

LOCAL_ACCOUNT = "123456789012"
LOCAL_REGION = "us-east-1"
LOCAL_BUCKET = "ml-pipeline"
LOCAL_ROLE = f"arn:aws:iam::{LOCAL_ACCOUNT}:role/ml-pipeline-job"
LOCAL_POLL_SECONDS = 0.5
_IMAGE = re.compile(r"[\w-]+(\.[\w-]+)+(:\d+)?/[\w./-]+(:[\w.-]+)?(@sha256:[0-9a-f]{64})?")
LOCAL_INSTANCE_IMAGE = "ami-12c6146b"
# Public parameter with the newest Deep Learning AMI with PyTorch 2.x on Amazon Linux 2023.
INSTANCE_IMAGE = (
    "/aws/service/deeplearning/ami/x86_64/oss-nvidia-driver-gpu-pytorch-2.8-amazon-linux-2023/latest/ami-id"
)
# AWS throttles Describe calls at a few per second and account; a job there lasts minutes.
AWS_POLL_SECONDS = 30.0
LOCAL_BAKE_SECONDS = 2
AWS_BAKE_SECONDS = 120


class SettingsError(ValueError):
    """A setting is missing or wrong; the message names the variable and a value that works."""


@dataclass(frozen=True)
class Settings:
    """Settings of one installation.

    Attributes:
        bucket: The one S3 bucket of docs/contracts.md.
        role_arn: The role that jobs, models and endpoints assume.
        region: AWS region; images and links are built from it.
        local_aws_url: Address of local_aws, or None on AWS.
        local_aws_public_url: The address for browsers, where that differs (containers).
        poll_seconds: Pause between two Describe calls of a waiting trigger.
        aws_conn_id: Airflow connection with the credentials.
        training_image, serving_image: URIs instead of those of images.toml.
        instance_profile: EC2 instance profile (name) of the EC2 branch.
        prices_file: TOML file merged over prices.toml.
        sns_topic_arn: Topic of notifications, in addition to the log.
        subnet_id: Subnet of EC2 instances; None for the default VPC.
        security_group_id: Security group of EC2 instances; None: one without inbound rules is made.
        instance_image: AMI of EC2 instances, or a public SSM parameter that holds it.
        mlflow: Address of an MLflow server, or the ARN of a SageMaker MLflow app, that runs are recorded in.
        network: Subnets, security groups, disk key and isolation of SageMaker jobs and models.
    """

    bucket: str
    role_arn: str
    region: str
    local_aws_url: str | None = None
    local_aws_public_url: str | None = None
    poll_seconds: float = AWS_POLL_SECONDS
    aws_conn_id: str = "aws_default"
    training_image: str | None = None
    serving_image: str | None = None
    instance_profile: str = "ml-pipeline-instance"
    prices_file: str | None = None
    sns_topic_arn: str | None = None
    subnet_id: str | None = None
    security_group_id: str | None = None
    instance_image: str = INSTANCE_IMAGE
    mlflow: str | None = None
    network: Network = OPEN

    def __post_init__(self) -> None:
        if not self.bucket:
            raise SettingsError("no bucket: set ML_PIPELINE_BUCKET to the name of your S3 bucket")
        if "/" in self.bucket:
            raise SettingsError(
                f"ML_PIPELINE_BUCKET is {self.bucket!r}: give the bare bucket name, without s3:// or a path"
            )
        if not self.role_arn.startswith("arn:"):
            raise SettingsError(
                f"ML_PIPELINE_ROLE_ARN is {self.role_arn!r}: give the ARN of the role that jobs assume"
            )
        if not self.region:
            raise SettingsError("no region: set AWS_DEFAULT_REGION, for example to eu-west-1")
        for name, image in (("TRAINING_IMAGE", self.training_image), ("SERVING_IMAGE", self.serving_image)):
            if image and not _IMAGE.fullmatch(image):
                raise SettingsError(
                    f"ML_PIPELINE_{name} is {image!r}: give <registry>/<repository>:<tag>, for example "
                    "123456789012.dkr.ecr.eu-west-1.amazonaws.com/ml-pipeline-serving:1"
                )
        if self.mlflow and not self.mlflow.startswith(("http://", "https://", "arn:")):
            raise SettingsError(
                f"ML_PIPELINE_MLFLOW is {self.mlflow!r}: give an address such as http://mlflow:5000, or the ARN of a "
                "SageMaker MLflow app"
            )
        if self.poll_seconds <= 0:
            raise SettingsError(f"ML_PIPELINE_POLL_SECONDS is {self.poll_seconds}: it must be above 0")

    @property
    def bake_seconds(self) -> int:
        """Default bake time of an update: AWS's alarms evaluate whole minutes."""
        return LOCAL_BAKE_SECONDS if self.local else AWS_BAKE_SECONDS

    @property
    def local(self) -> bool:
        """True if the AWS is local_aws on this machine."""
        return self.local_aws_url is not None

    def s3(self, key: str) -> str:
        """Return the s3:// URI of `key` in the bucket."""
        return f"s3://{self.bucket}/{key}"

    @classmethod
    def load(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the settings; on local_aws all of them have defaults.

        Raises:
            SettingsError: A setting is missing (on AWS) or malformed.
        """
        env = os.environ if environment is None else environment
        url = local_aws_url(env)

        def read(name: str, local: str = "") -> str:
            return env.get(f"ML_PIPELINE_{name}", "").strip() or (local if url else "")

        return cls(
            bucket=read("BUCKET", LOCAL_BUCKET),
            role_arn=read("ROLE_ARN", LOCAL_ROLE),
            region=env.get("AWS_DEFAULT_REGION") or env.get("AWS_REGION") or (LOCAL_REGION if url else ""),
            local_aws_url=url,
            local_aws_public_url=env.get("LOCAL_AWS_PUBLIC_URL", "").strip().rstrip("/") or url,
            poll_seconds=_seconds(read("POLL_SECONDS"), LOCAL_POLL_SECONDS if url else AWS_POLL_SECONDS),
            aws_conn_id=read("AWS_CONN_ID") or "aws_default",
            training_image=read("TRAINING_IMAGE") or None,
            serving_image=read("SERVING_IMAGE") or None,
            instance_profile=read("INSTANCE_PROFILE") or "ml-pipeline-instance",
            prices_file=read("PRICES_FILE") or None,
            sns_topic_arn=read("SNS_TOPIC_ARN") or None,
            subnet_id=read("SUBNET_ID") or None,
            security_group_id=read("SECURITY_GROUP_ID") or None,
            instance_image=read("INSTANCE_IMAGE", LOCAL_INSTANCE_IMAGE) or INSTANCE_IMAGE,
            mlflow=read("MLFLOW") or None,
            network=_network(read),
        )


def local_aws_url(environment: Mapping[str, str] | None = None) -> str | None:
    """Return the address of local_aws without a trailing slash, or None if LOCAL_AWS_URL is unset."""
    env = os.environ if environment is None else environment
    url = env.get("LOCAL_AWS_URL", "").strip().rstrip("/")
    if not url:
        return None
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise SettingsError(f"LOCAL_AWS_URL is {url!r}: give an address such as http://127.0.0.1:4566")
    return url


@dataclass(frozen=True)
class WatchedQueue:
    """The SQS queue with the bucket's object events.

    Attributes:
        quiet_seconds: A burst of photos is over after this long without one.
    """

    url: str
    quiet_seconds: float
    aws_conn_id: str


def watched_queue(environment: Mapping[str, str] | None = None) -> WatchedQueue | None:
    """Return the queue to watch, or None. DAG files read it when parsed, so it raises for no other setting."""
    env = os.environ if environment is None else environment
    url = env.get("ML_PIPELINE_QUEUE_URL", "").strip()
    if not url:
        return None
    return WatchedQueue(
        url,
        2.0 if local_aws_url(env) else 60.0,
        env.get("ML_PIPELINE_AWS_CONN_ID") or "aws_default",
    )


def param_defaults(environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Read ML_PIPELINE_DEFAULTS: values of params that are not set, as in scheduled runs; {} if unset.

    Raises:
        SettingsError: It is not a JSON object.
    """
    env = os.environ if environment is None else environment
    text = env.get("ML_PIPELINE_DEFAULTS", "").strip() or "{}"
    try:
        values = json.loads(text)
    except json.JSONDecodeError:
        values = None
    if not isinstance(values, dict):
        raise SettingsError(
            f"ML_PIPELINE_DEFAULTS is {text!r}: give a JSON object, for example "
            '{"data": "s3://team-photos/dogs", "dataset_name": "dogs"}'
        )
    return values


def airflow_connection(
    url: str, region: str = LOCAL_REGION, key: str = "local", secret: str = "not-a-secret"
) -> str:
    """Return the JSON of AIRFLOW_CONN_AWS_DEFAULT for a local_aws at `url`.

    STS ignores the connection's endpoint_url when it assumes a role (amazon provider 9.39,
    `connection_wrapper.get_service_endpoint_url`), hence its own entry.
    """
    return json.dumps(
        {
            "conn_type": "aws",
            "login": key,
            "password": secret,
            "extra": {
                "region_name": region,
                "endpoint_url": url,
                "config_kwargs": {"s3": {"addressing_style": "path"}, "retries": {"mode": "standard"}},
                "service_config": {"sts": {"endpoint_url": url}},
            },
        }
    )


def _network(read: Callable[[str], str]) -> Network:
    def ids(name: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in read(name).split(",") if part.strip())

    def switch(name: str) -> bool:
        text = read(name).lower()
        if text not in ("", "true", "false"):
            raise SettingsError(f"ML_PIPELINE_{name} is {text!r}: give true or false")
        return text == "true"

    isolated, encrypted = switch("ISOLATE_JOBS"), switch("ENCRYPT_TRAFFIC")
    subnets, groups = ids("JOB_SUBNET_IDS"), ids("JOB_SECURITY_GROUP_IDS")
    try:
        return Network(subnets, groups, read("VOLUME_KEY") or None, isolated, encrypted)
    except ValueError as error:
        raise SettingsError(
            f"{error}: see ML_PIPELINE_JOB_SUBNET_IDS, ML_PIPELINE_JOB_SECURITY_GROUP_IDS"
        ) from None


def _seconds(text: str, default: float) -> float:
    if not text:
        return default
    try:
        return float(text)
    except ValueError:
        raise SettingsError(
            f"ML_PIPELINE_POLL_SECONDS is {text!r}: give a number of seconds, for example 30"
        ) from None
