"""The services that moto answers: refusals in the service's own protocol, never a page of HTML."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local_aws.cloud import Cloud, unique


def now() -> int:
    """Milliseconds since the epoch: CloudWatch Logs rejects events older than 14 days."""
    return int(time.time() * 1000)


@pytest.mark.parametrize(
    ("service", "operation", "params"),
    [
        ("ec2", "describe_id_format", {}),
        ("iam", "get_context_keys_for_custom_policy", {"PolicyInputList": ["{}"]}),
        ("ssm", "list_nodes", {}),
        ("sns", "list_origination_numbers", {}),
        ("mturk", "get_account_balance", {}),
    ],
)
def test_unsupported_operations_say_so(
    cloud: Cloud, service: str, operation: str, params: dict[str, Any]
) -> None:
    with pytest.raises(ClientError) as caught:
        getattr(cloud.client(service), operation)(**params)
    error = caught.value.response
    assert error["Error"]["Code"] == "UnsupportedOperation", error
    assert "is not supported by local_aws" in error["Error"]["Message"]


def template(**types: str) -> str:
    return json.dumps({"Resources": {name: {"Type": kind} for name, kind in types.items()}})


def test_stacks_of_what_would_be_skipped_are_refused(cloud: Cloud) -> None:
    formation, name = cloud.client("cloudformation"), unique("stack")
    body = template(
        Queue="AWS::SQS::Queue", Scaling="AWS::ApplicationAutoScaling::ScalableTarget", Odd="AWS::Made::Up"
    )
    with pytest.raises(
        ClientError,
        match="does not support these resource types: AWS::ApplicationAutoScaling::ScalableTarget, AWS::Made::Up",
    ):
        formation.create_stack(StackName=name, TemplateBody=body)
    assert name not in [stack["StackName"] for stack in formation.describe_stacks()["Stacks"]]
    formation.create_stack(StackName=name, TemplateBody=template(Queue="AWS::SQS::Queue"))
    assert formation.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"] == "CREATE_COMPLETE"


def test_the_policy_simulator(cloud: Cloud) -> None:
    iam, role = cloud.client("iam"), unique("role")
    arn = iam.create_role(RoleName=role, AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    document = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": "s3:Get*", "Resource": "*"},
            {"Effect": "Deny", "Action": "s3:GetBucketPolicy", "Resource": "*"},
        ],
    }
    iam.put_role_policy(RoleName=role, PolicyName="p", PolicyDocument=json.dumps(document))
    actions = ["s3:GetObject", "s3:PutObject", "s3:GetBucketPolicy"]
    results = iam.simulate_principal_policy(PolicySourceArn=arn, ActionNames=actions)["EvaluationResults"]
    assert [result["EvalDecision"] for result in results] == ["allowed", "implicitDeny", "explicitDeny"]


def test_half_a_surrogate_pair_harms_no_later_event(cloud: Cloud) -> None:
    logs, group = cloud.client("logs"), unique("group")
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName="s")
    for message in ("half \ud800 a pair", "whole"):
        event = {"timestamp": now(), "message": message}
        logs.put_log_events(logGroupName=group, logStreamName="s", logEvents=[event])
    found = logs.get_log_events(logGroupName=group, logStreamName="s", startFromHead=True)["events"]
    assert [event["message"] for event in found] == ["half ? a pair", "whole"]


def test_logs_of_a_clients_own(cloud: Cloud) -> None:
    logs, group = cloud.client("logs"), unique("group")
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName="s")
    with pytest.raises(logs.exceptions.ResourceAlreadyExistsException):
        logs.create_log_group(logGroupName=group)
    first_at = now()
    events = [{"timestamp": first_at + n, "message": f"line {n}"} for n in range(5)]
    logs.put_log_events(logGroupName=group, logStreamName="s", logEvents=events)
    first = logs.get_log_events(logGroupName=group, logStreamName="s", startFromHead=True, limit=2)
    assert [event["message"] for event in first["events"]] == ["line 0", "line 1"]
    rest = logs.get_log_events(logGroupName=group, logStreamName="s", nextToken=first["nextForwardToken"])
    assert [event["message"] for event in rest["events"]] == ["line 2", "line 3", "line 4"]
    end = logs.get_log_events(logGroupName=group, logStreamName="s", nextToken=rest["nextForwardToken"])
    assert end["events"] == []
    assert end["nextForwardToken"] == rest["nextForwardToken"]
    last = logs.get_log_events(logGroupName=group, logStreamName="s", limit=1)
    assert [event["message"] for event in last["events"]] == ["line 4"]
    found = logs.filter_log_events(logGroupName=group, filterPattern="?3 ?4")["events"]
    assert [event["message"] for event in found] == ["line 3", "line 4"]
