"""EC2 instances and commands of a run: start or adopt, find, terminate."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ml_pipeline.aws.clients import Client
from ml_pipeline.errors import code_of
from ml_pipeline.requests import instance, names
from ml_pipeline.requests.instance import Instance
from ml_pipeline.requests.types import Document
from ml_pipeline.settings import Settings

ALIVE = ("pending", "running", "stopping", "stopped")
# Linux on EC2 is billed by the second, with a minimum of one minute (EC2 On-Demand pricing).
LEAST_BILLED_SECONDS = 60.0
_GROUP = "ml-pipeline-no-inbound"
_ACTIVE_COMMANDS = frozenset({"Pending", "InProgress", "Delayed"})


def image_id(settings: Settings, ssm: Client) -> str:
    """Return the AMI of the settings, or the value of the public SSM parameter that they name."""
    if settings.instance_image.startswith("ami-"):
        return settings.instance_image
    value: str = ssm.get_parameter(Name=settings.instance_image)["Parameter"]["Value"]
    return value


def security_group(settings: Settings, ec2: Client) -> str:
    """Return the security group of the settings, or one without inbound rules, made once per VPC."""
    if settings.security_group_id:
        return settings.security_group_id
    filters = [{"Name": "group-name", "Values": [_GROUP]}]
    vpc_id = None
    if settings.subnet_id:
        vpc_id = ec2.describe_subnets(SubnetIds=[settings.subnet_id])["Subnets"][0]["VpcId"]
        filters.append({"Name": "vpc-id", "Values": [vpc_id]})
    if not (found := ec2.describe_security_groups(Filters=filters)["SecurityGroups"]):
        with _unless("InvalidGroup.Duplicate"):
            return str(ec2.create_security_group(**instance.security_group(_GROUP, vpc_id))["GroupId"])
        found = ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
    return str(found[0]["GroupId"])


def ensure_local_profile(iam: Client, name: str) -> None:
    """Make the instance profile and its role on local_aws, as infra/ makes them on AWS.

    EC2 refuses an unknown profile on both, and an instance has the credentials of its profile's role. Where IAM is
    enforced, the profile was made with the account's roles, and Airflow's role may not look.
    """
    if _has_role(iam, name):
        return
    with _unless("EntityAlreadyExists"):
        iam.create_instance_profile(InstanceProfileName=name)
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "ec2.amazonaws.com"},
        "Action": "sts:AssumeRole",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    with _unless("EntityAlreadyExists"):
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy)
    # IAM's answer where the profile has its role: it takes only one.
    with _unless("LimitExceeded"):
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)


def _has_role(iam: Client, name: str) -> bool:
    """Tell whether a profile has its role; True where Airflow's role may not look, too."""
    from botocore.exceptions import ClientError

    try:
        return bool(iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Roles"])
    except ClientError as error:
        if (code := code_of(error)) not in ("NoSuchEntity", "AccessDenied"):
            raise
        return code == "AccessDenied"


@contextmanager
def _unless(code: str) -> Iterator[None]:
    """Let an error of this code pass: another run, or a call whose answer was lost, has done the work."""
    from botocore.exceptions import ClientError

    try:
        yield
    except ClientError as error:
        if code_of(error) != code:
            raise


def run_or_adopt(
    ec2: Client,
    template: Instance,
    name_of: Callable[[int], str],
    tags: Sequence[Mapping[str, str]],
) -> tuple[str, bool]:
    """Start one instance, or find the one that was started: the name only rises after a dead one.

    Concurrent calls cannot start two: the name is the ClientToken, for which EC2 answers with the same instance.

    Returns:
        The instance id, and True if it was started now.
    """
    attempt = 1
    while True:
        name = name_of(attempt)
        found = _by_tags(ec2, {"Name": name})
        if not found:
            response = ec2.run_instances(**instance.run_instances(replace(template, name=name), tags))
            return str(response["Instances"][0]["InstanceId"]), True
        if found[0]["State"]["Name"] in ("pending", "running"):
            return str(found[0]["InstanceId"]), False
        attempt += 1


@dataclass(frozen=True)
class Ended:
    """An instance that was terminated, and its billed seconds, from launch to end."""

    instance_id: str
    instance_type: str
    seconds: float


def terminate(ec2: Client, dag_id: str, run_id: str) -> list[Ended]:
    """Terminate every living instance of the run, and return all that it ever had."""
    wanted = {tag["Key"]: tag["Value"] for tag in names.tags(names.Origin(dag_id, run_id, ""))}
    found = _by_tags(ec2, wanted)
    alive = [entry["InstanceId"] for entry in found if entry["State"]["Name"] in ALIVE]
    if alive:
        ec2.terminate_instances(InstanceIds=alive)
    now = datetime.now(UTC)
    return [Ended(entry["InstanceId"], entry["InstanceType"], billed_seconds(entry, now)) for entry in found]


def billed_seconds(described: Document, now: datetime) -> float:
    """Return the seconds from an instance's launch to its end, or to `now` if it has not ended."""
    end = now
    # "User initiated (2026-11-22 21:00:00 GMT)": EC2 states the time of an end nowhere else.
    if found := re.search(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)", described.get("StateTransitionReason", "")):
        end = datetime.fromisoformat(found[1]).replace(tzinfo=UTC)
    lived = (end - described["LaunchTime"]).total_seconds()
    return max(LEAST_BILLED_SECONDS, lived)


def running_command(ssm: Client, instance_id: str, comment: str) -> str | None:
    """Return the id of a command with that comment that is active on the instance, or None."""
    pages = ssm.get_paginator("list_commands").paginate(InstanceId=instance_id)
    for command in (item for page in pages for item in page["Commands"]):
        if command.get("Comment") == comment and command["Status"] in _ACTIVE_COMMANDS:
            return str(command["CommandId"])
    return None


def alive(ec2: Client) -> list[Document]:
    """Describe every living instance of the project."""
    return [entry for entry in _by_tags(ec2, dict([names.PROJECT_TAG])) if entry["State"]["Name"] in ALIVE]


def _by_tags(ec2: Client, tags: Mapping[str, str]) -> list[Document]:
    filters = [{"Name": f"tag:{key}", "Values": [value]} for key, value in tags.items()]
    pages = ec2.get_paginator("describe_instances").paginate(Filters=filters)
    return [
        entry for page in pages for reservation in page["Reservations"] for entry in reservation["Instances"]
    ]
