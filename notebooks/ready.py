"""The AWS of the notebooks: local_aws, or your own account with one setting, both under `make notebook`."""

from __future__ import annotations

import json
import logging
import os
import urllib.error
import urllib.request
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

LOCAL, ACCOUNT = "local", "account"
_START = "start the notebooks with `make notebook`"
_TRAINING_IMAGE = "763104351884.dkr.ecr.{region}.amazonaws.com/pytorch:2.13-cpu-amzn2023-sagemaker"


class NotReady(Exception):
    """Nothing to work with; the message is one line that names the fix."""

    def _render_traceback_(self) -> list[str]:
        """Show IPython one line instead of a stack."""
        return [f"not ready: {self}"]


@dataclass(frozen=True)
class Aws:
    """Clients, names and images of one AWS.

    Attributes:
        where: "local" or "account".
        region: The AWS region.
        bucket: The bucket that the pipeline uses, or SageMaker's default one.
        role: ARN of the role that jobs assume.
    """

    where: str
    region: str
    bucket: str
    role: str

    @cached_property
    def boto(self) -> Any:
        """The boto3 session."""
        import boto3

        return boto3.Session(region_name=self.region)

    @cached_property
    def session(self) -> Any:
        """The session of the SageMaker SDK v3."""
        from sagemaker.core.helper.session_helper import Session

        return Session(boto_session=self.boto, default_bucket=self.bucket)

    def client(self, service: str) -> Any:
        """Make a boto3 client of `service`."""
        return self.boto.client(service)

    @property
    def training_image(self) -> str:
        """AWS's public PyTorch training image for CPUs."""
        return os.environ.get("ML_PIPELINE_TRAINING_IMAGE") or _TRAINING_IMAGE.format(region=self.region)

    @property
    def serving_image(self) -> str:
        """The image of this project's model server.

        Raises:
            NotReady: On an account without ML_PIPELINE_SERVING_IMAGE.
        """
        image = os.environ.get("ML_PIPELINE_SERVING_IMAGE")
        if image:
            return image
        if self.where == LOCAL:
            return f"123456789012.dkr.ecr.{self.region}.amazonaws.com/ml-pipeline-serving:local"
        raise NotReady("set ML_PIPELINE_SERVING_IMAGE to the URI of your serving image (docs/deploying.md)")


def connect(where: str = LOCAL) -> Aws:
    """Return the AWS to work with, checked.

    Args:
        where: "local" (local_aws) or "account" (the AWS account of your credentials).

    Raises:
        NotReady: It cannot be reached, or its credentials are refused.
    """
    _keep_cells_short()
    _enter(where)
    if where == LOCAL:
        return _local()
    if where == ACCOUNT:
        return _account()
    raise NotReady(f'connect({where!r}) is unknown: give "local" or "account"')


def _keep_cells_short() -> None:
    """Show warnings of the SDK and of botocore, and not each of their steps."""
    shown = logging.StreamHandler()
    shown.setLevel(logging.WARNING)
    logging.basicConfig(handlers=[shown])  # before the SDK's own, which would show everything
    warnings.filterwarnings("ignore", message='install "ipywidgets"')


def _enter(where: str) -> None:
    """Give this kernel the AWS variables of one side, which `make notebook` passes on: its own, or yours."""
    sides = json.loads(os.environ.get("ML_PIPELINE_NOTEBOOK_AWS", "{}"))
    if where in sides:
        import boto3

        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]
        os.environ.update(sides[where])
        boto3.DEFAULT_SESSION = None  # it keeps the credentials of the other side


def _local() -> Aws:
    url = os.environ.get("AWS_ENDPOINT_URL")
    if not url:
        raise NotReady(f'no local_aws in this environment: {_START}, or use connect("account")')
    try:
        with urllib.request.urlopen(f"{url}/_local_aws/health", timeout=10):
            pass
    except (OSError, urllib.error.URLError):
        raise NotReady(f"local_aws does not answer at {url}: {_START}") from None
    aws = Aws(LOCAL, "us-east-1", "ml-pipeline", "arn:aws:iam::123456789012:role/ml-pipeline-job")
    _check(aws)
    return aws


def _account() -> Aws:
    if os.environ.get("AWS_ENDPOINT_URL"):
        raise NotReady(
            "AWS_ENDPOINT_URL is set, so every call would reach local_aws: start Jupyter without it"
        )
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        region = boto3.Session().region_name
    except BotoCoreError as error:
        raise NotReady(f"{error}: check AWS_PROFILE") from None
    if not region:
        raise NotReady("no region: set AWS_DEFAULT_REGION, for example to eu-west-1")
    bucket = os.environ.get("ML_PIPELINE_BUCKET") or _output(region, "storage", "Bucket")
    role = os.environ.get("ML_PIPELINE_ROLE_ARN") or _output(region, "jobs", "JobRole")
    aws = Aws(ACCOUNT, region, bucket, role)
    _check(aws)
    return aws


def _output(region: str, stack: str, key: str) -> str:
    """Return an output of a stack of infra/.

    Raises:
        NotReady: There is no such stack in the region, or it cannot be read.
    """
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    name = f"{os.environ.get('PROJECT', 'ml-pipeline')}-{stack}"
    try:
        found = boto3.client("cloudformation", region_name=region).describe_stacks(StackName=name)["Stacks"]
        return next(str(o["OutputValue"]) for o in found[0].get("Outputs", []) if o["OutputKey"] == key)
    except BotoCoreError as error:
        raise NotReady(f"AWS cannot be reached: {error}; check AWS_PROFILE or your login") from None
    except (ClientError, IndexError, StopIteration) as error:
        why = error.response["Error"]["Message"] if isinstance(error, ClientError) else f"it has no {key}"
        raise NotReady(
            f"stack {name} in {region} cannot be read ({why}): deploy it with infra/deploy.sh, name its PROJECT, or "
            "set ML_PIPELINE_ROLE_ARN and ML_PIPELINE_BUCKET to the pipeline's role and bucket"
        ) from None


def _check(aws: Aws) -> None:
    from botocore.exceptions import BotoCoreError, ClientError

    s3 = aws.client("s3")
    try:
        s3.head_bucket(Bucket=aws.bucket)
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status != 404:
            raise NotReady(
                f"the credentials of this notebook are refused (HTTP {status}): "
                + (_START if aws.where == LOCAL else "check AWS_PROFILE or your login")
            ) from None
        if aws.where == ACCOUNT:
            raise NotReady(f"there is no bucket {aws.bucket}: see docs/deploying.md") from None
        s3.create_bucket(Bucket=aws.bucket)
    except BotoCoreError as error:
        raise NotReady(f"AWS cannot be reached: {error}") from None
