"""Creates the stacks of infra/ in moto's CloudFormation, in the order of infra/deploy.sh."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3

INFRA = Path(__file__).resolve().parents[2] / "infra"
TEMPLATES = sorted(INFRA.glob("*.yaml"))
ACCOUNT = "123456789012"
REGION = "eu-west-1"
BUCKET = f"ml-pipeline-{ACCOUNT}-{REGION}"


def create(name: str, **parameters: str) -> dict[str, str]:
    """Create one stack; its outputs. Raises ClientError, as CloudFormation does for a reference to nothing."""
    project = parameters.get("Project", "ml-pipeline")
    client = boto3.client("cloudformation", region_name=REGION)
    client.create_stack(
        StackName=f"{project}-{name}",
        TemplateBody=(INFRA / f"{name}.yaml").read_text(),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )
    stack = client.describe_stacks(StackName=f"{project}-{name}")["Stacks"][0]
    assert stack["StackStatus"] == "CREATE_COMPLETE", stack.get("StackStatusReason")
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}


def size(policies: list[dict[str, Any]]) -> int:
    """Characters that IAM counts: white space is free."""
    return sum(len(json.dumps(policy, separators=(",", ":"))) for policy in policies)
