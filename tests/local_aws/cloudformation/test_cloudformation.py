"""Stacks: what they say is there can be asked of the services, and infra/'s templates can be deployed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.infra.stacks import ACCOUNT, BUCKET, INFRA, REGION
from tests.local_aws.cloud import Cloud, unique


def deploy(cloud: Cloud, name: str, body: str, **parameters: str) -> dict[str, Any]:
    """As `aws cloudformation deploy` does: by a change set; the stack as it is then."""
    client = cloud.client("cloudformation", REGION)
    kind = "CREATE"
    if name in [stack["StackName"] for stack in client.describe_stacks()["Stacks"]]:
        kind = "UPDATE"
    made = client.create_change_set(
        StackName=name, ChangeSetName=unique("set"), ChangeSetType=kind, TemplateBody=body,
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )  # fmt: skip
    client.execute_change_set(ChangeSetName=made["Id"], StackName=name)
    return dict(client.describe_stacks(StackName=name)["Stacks"][0])


def outputs(stack: dict[str, Any]) -> dict[str, str]:
    return {each["OutputKey"]: each["OutputValue"] for each in stack.get("Outputs", [])}


@pytest.mark.slow
def test_the_projects_templates(cloud: Cloud) -> None:
    found = {}
    for name in ("storage", "images", "network", "jobs", "airflow", "endpoint"):
        parameters = {"EndpointName": "dogs"} if name == "endpoint" else {}
        stack = deploy(cloud, f"ml-pipeline-{name}", (INFRA / f"{name}.yaml").read_text(), **parameters)
        assert stack["StackStatus"] == "CREATE_COMPLETE", stack
        found[name] = outputs(stack)
    assert found["jobs"]["JobRole"] == f"arn:aws:iam::{ACCOUNT}:role/ml-pipeline-job"

    s3 = cloud.client("s3", REGION)
    assert found["storage"]["Bucket"] == BUCKET
    assert s3.get_bucket_versioning(Bucket=BUCKET)["Status"] == "Enabled"
    assert len(s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]) == 8
    assert "OnlyTls" in s3.get_bucket_policy(Bucket=BUCKET)["Policy"]
    rule = s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert rule["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"] == found["storage"]["KeyArn"]
    s3.put_object(Bucket=BUCKET, Key="incoming/dogs/a b.jpg", Body=b"1")
    groups = cloud.client("ec2", REGION).describe_security_groups(
        Filters=[{"Name": "vpc-id", "Values": [found["network"]["VpcId"]]}]
    )["SecurityGroups"]
    assert any(rule["UserIdGroupPairs"] for group in groups for rule in group["IpPermissionsEgress"])
    sqs = cloud.client("sqs", REGION)
    messages: list[Any] = []
    while not any("incoming/dogs/a+b.jpg" in message["Body"] for message in messages):
        answer = sqs.receive_message(QueueUrl=found["storage"]["QueueUrl"], WaitTimeSeconds=5)
        assert answer.get("Messages"), messages
        messages += answer["Messages"]
    policy = sqs.get_queue_attributes(QueueUrl=found["storage"]["QueueUrl"], AttributeNames=["Policy"])
    assert "BucketAnnounces" in policy["Attributes"]["Policy"]
    roles = cloud.client("iam", REGION).list_role_policies(RoleName="ml-pipeline-airflow")["PolicyNames"]
    assert "limits" in roles
    alarms = cloud.client("cloudwatch", REGION).describe_alarms(AlarmNamePrefix="dogs-")["MetricAlarms"]
    assert {alarm["Threshold"] for alarm in alarms} == {5.0, 2_000_000.0}
    changed = deploy(
        cloud, "ml-pipeline-storage", (INFRA / "storage.yaml").read_text(), PhotosPrefix="elsewhere/"
    )
    assert changed["StackStatus"] == "UPDATE_COMPLETE"
    rules = s3.get_bucket_notification_configuration(Bucket=BUCKET)["QueueConfigurations"]
    assert rules[0]["Filter"]["Key"]["FilterRules"][0]["Value"] == "elsewhere/"


def template(**resources: Any) -> str:
    return json.dumps({"Resources": resources})


def test_stacks_are_really_there_and_really_gone(cloud: Cloud) -> None:
    name, group, packages = unique("stack"), unique("group"), unique("packages")
    body = template(
        Bucket={"Type": "AWS::S3::Bucket"},
        Group={
            "Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": group, "RetentionInDays": 7},
        },
        Packages={
            "Type": "AWS::SageMaker::ModelPackageGroup", "Properties": {"ModelPackageGroupName": packages},
        },
    )  # fmt: skip
    client = cloud.client("cloudformation", REGION)
    client.create_stack(StackName=name, TemplateBody=body)
    resources = client.describe_stack_resources(StackName=name)["StackResources"]
    physical = {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in resources}
    s3, logs = cloud.client("s3", REGION), cloud.client("logs", REGION)
    s3.head_bucket(Bucket=physical["Bucket"])
    assert logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"][0]["retentionInDays"] == 7
    sagemaker = cloud.client("sagemaker", REGION)
    sagemaker.describe_model_package_group(ModelPackageGroupName=packages)
    client.delete_stack(StackName=name)
    with pytest.raises(ClientError, match="404"):
        s3.head_bucket(Bucket=physical["Bucket"])
    assert logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"] == []
    with pytest.raises(ClientError, match="does not exist"):
        sagemaker.describe_model_package_group(ModelPackageGroupName=packages)


@pytest.mark.parametrize("by_change_set", [True, False])
def test_a_stack_that_fails_is_rolled_back(cloud: Cloud, by_change_set: bool) -> None:
    name, bucket = unique("stack"), unique("bucket")
    body = template(
        First={"Type": "AWS::S3::Bucket", "Properties": {"BucketName": bucket}},
        Second={
            "Type": "AWS::S3::Bucket",
            "Properties": {"BucketName": "Not A Bucket"},
            "DependsOn": "First",
        },
    )
    body = json.dumps({**json.loads(body), "Outputs": {"Arn": {"Value": {"Fn::GetAtt": ["Second", "Arn"]}}}})
    client = cloud.client("cloudformation", REGION)
    if by_change_set:
        stack = deploy(cloud, name, body)
    else:
        client.create_stack(StackName=name, TemplateBody=body)
        stack = client.describe_stacks(StackName=name)["Stacks"][0]
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "Outputs" not in stack
    reasons = [
        e.get("ResourceStatusReason", "") for e in client.describe_stack_events(StackName=name)["StackEvents"]
    ]
    assert any("Not A Bucket" in reason or "bucket" in reason for reason in reasons)
    with pytest.raises(ClientError, match="404"):
        cloud.client("s3", REGION).head_bucket(Bucket=bucket)


def test_a_property_that_would_be_left_out_is_refused(cloud: Cloud) -> None:
    name = unique("stack")
    website = {"Type": "AWS::S3::Bucket", "Properties": {"WebsiteConfiguration": {"IndexDocument": "i"}}}
    stack = deploy(cloud, name, template(Site=website))
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    events = cloud.client("cloudformation", REGION).describe_stack_events(StackName=name)["StackEvents"]
    assert any(
        "does not support these properties of AWS::S3::Bucket: WebsiteConfiguration"
        in event.get("ResourceStatusReason", "")
        for event in events
    )
