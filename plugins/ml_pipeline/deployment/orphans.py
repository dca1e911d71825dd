"""Find unused things that cost money or clutter the account, by tag and age."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ml_pipeline.aws.clients import Client
from ml_pipeline.requests.names import PROJECT_TAG, is_ours
from ml_pipeline.requests.types import Document, Swept

_BROKEN = frozenset({"Failed", "OutOfService", "UpdateRollbackFailed"})


@dataclass(frozen=True)
class Orphan:
    """A thing to remove. `kind`: "endpoint", "endpoint-config", "model" or "instance"."""

    kind: str
    name: str
    reason: str
    age_days: float


@dataclass(frozen=True)
class Account:
    """The clients of the search, and the current time."""

    sagemaker: Client
    ec2: Client
    cloudwatch: Client
    now: datetime

    def age(self, moment: datetime) -> float:
        """Return the days since `moment`."""
        return (self.now - moment).total_seconds() / 86400


def find(account: Account, days: float, instance_hours: float) -> list[Orphan]:
    """Find the project's things that are unused and older than `days`, and instances older than `instance_hours`.

    An endpoint is an orphan if it is broken, or had no call for `days`. A config is one if no endpoint uses it, a model
    if no config does.
    """
    endpoints = list(_endpoints(account))
    used_configs = {
        endpoint["EndpointConfigName"] for endpoint in endpoints if "EndpointConfigName" in endpoint
    }
    configs = [*account.sagemaker.get_paginator("list_endpoint_configs").paginate()]
    config_rows = [row for page in configs for row in page["EndpointConfigs"]]
    idle = [
        row
        for row in config_rows
        if row["EndpointConfigName"] not in used_configs and _old(account, row, "EndpointConfigArn", days)
    ]
    used_models = {
        variant["ModelName"]
        for row in config_rows
        if row not in idle
        for variant in account.sagemaker.describe_endpoint_config(
            EndpointConfigName=row["EndpointConfigName"]
        )["ProductionVariants"]
        if "ModelName" in variant
    }
    found = [orphan for endpoint in endpoints if (orphan := _judge_endpoint(account, endpoint, days))]
    for row in idle:
        age = account.age(row["CreationTime"])
        found.append(Orphan("endpoint-config", row["EndpointConfigName"], "no endpoint uses it", age))
    for page in account.sagemaker.get_paginator("list_models").paginate():
        for row in page["Models"]:
            if row["ModelName"] not in used_models and _old(account, row, "ModelArn", days):
                age = account.age(row["CreationTime"])
                found.append(Orphan("model", row["ModelName"], "no endpoint config uses it", age))
    return found + list(_instances(account, instance_hours))


def remove(account: Account, orphan: Orphan) -> None:
    """Delete or terminate an orphan."""
    sagemaker = account.sagemaker
    if orphan.kind == "endpoint":
        sagemaker.delete_endpoint(EndpointName=orphan.name)
    elif orphan.kind == "endpoint-config":
        sagemaker.delete_endpoint_config(EndpointConfigName=orphan.name)
    elif orphan.kind == "model":
        sagemaker.delete_model(ModelName=orphan.name)
    else:
        account.ec2.terminate_instances(InstanceIds=[orphan.name])


def sweep(account: Account, days: float, instance_hours: float, dry_run: bool) -> Swept:
    """Find all orphans and, unless `dry_run`, remove them."""
    found = find(account, days, instance_hours)
    if not dry_run:
        for orphan in found:
            remove(account, orphan)
    return {
        "dry_run": dry_run,
        "removed": 0 if dry_run else len(found),
        "found": [
            {"kind": item.kind, "name": item.name, "reason": item.reason, "age_days": item.age_days}
            for item in found
        ],
    }


def _endpoints(account: Account) -> Iterator[Document]:
    for page in account.sagemaker.get_paginator("list_endpoints").paginate():
        for row in page["Endpoints"]:
            yield account.sagemaker.describe_endpoint(EndpointName=row["EndpointName"])


def _judge_endpoint(account: Account, endpoint: Document, days: float) -> Orphan | None:
    name, age = endpoint["EndpointName"], account.age(endpoint["LastModifiedTime"])
    if age < days or not _ours(account, endpoint["EndpointArn"]):
        return None
    if endpoint["EndpointStatus"] in _BROKEN:
        return Orphan("endpoint", name, f"it is {endpoint['EndpointStatus']}", age)
    if endpoint["EndpointStatus"] == "InService" and not _calls(account, endpoint, days):
        return Orphan("endpoint", name, f"no calls for {days:g} days", age)
    return None


def _calls(account: Account, endpoint: Document, days: float) -> float:
    total = 0.0
    for variant in endpoint["ProductionVariants"]:
        points = account.cloudwatch.get_metric_statistics(
            Namespace="AWS/SageMaker",
            MetricName="Invocations",
            Dimensions=[
                {"Name": "EndpointName", "Value": endpoint["EndpointName"]},
                {"Name": "VariantName", "Value": variant["VariantName"]},
            ],
            StartTime=account.now - timedelta(days=max(days, 1 / 24)),
            EndTime=account.now,
            Period=86400 if days >= 1 else 3600,
            Statistics=["Sum"],
        )["Datapoints"]
        total += sum(point["Sum"] for point in points)
    return total


def _instances(account: Account, hours: float) -> Iterator[Orphan]:
    filters = [
        {"Name": f"tag:{PROJECT_TAG[0]}", "Values": [PROJECT_TAG[1]]},
        {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]},
    ]
    for page in account.ec2.get_paginator("describe_instances").paginate(Filters=filters):
        for instance in (entry for group in page["Reservations"] for entry in group["Instances"]):
            age = account.age(instance["LaunchTime"])
            if age * 24 >= hours:
                yield Orphan("instance", instance["InstanceId"], f"older than {hours:g} hours", age)


def _old(account: Account, row: Document, arn: str, days: float) -> bool:
    return account.age(row["CreationTime"]) >= days and _ours(account, row[arn])


def _ours(account: Account, arn: str) -> bool:
    return is_ours(account.sagemaker.list_tags(ResourceArn=arn)["Tags"])


def account(sagemaker: Client, ec2: Client, cloudwatch: Client) -> Account:
    """Return the account as of now."""
    return Account(sagemaker, ec2, cloudwatch, datetime.now(UTC))
