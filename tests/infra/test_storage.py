"""The bucket, the queue and the key: what they refuse, and what reaches whom."""

from __future__ import annotations

import boto3
import pytest

from tests.infra import stacks
from tests.infra.policy import Request, allowed
from tests.infra.template import Template

Outputs = dict[str, dict[str, str]]
STORAGE = Template("storage")
ALLOW_ALL = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
TLS = {"aws:SecureTransport": "true", "s3:TlsVersion": "1.3"}
ENCRYPTION = "s3:x-amz-server-side-encryption"


@pytest.mark.parametrize(
    ("action", "context", "expected"),
    [
        ("s3:GetObject", TLS, True),
        ("s3:GetObject", {**TLS, "aws:SecureTransport": "false"}, False),
        ("s3:GetObject", {**TLS, "s3:TlsVersion": "1.1"}, False),
        ("s3:PutObject", TLS, True),
        ("s3:PutObject", {**TLS, ENCRYPTION: "aws:kms"}, True),
        ("s3:PutObject", {**TLS, ENCRYPTION: "AES256"}, False),
    ],
)
def test_bucket_takes_encrypted_requests_only(action: str, context: dict[str, str], expected: bool) -> None:
    policy = STORAGE.properties("AWS::S3::BucketPolicy")["BucketPolicy"]["PolicyDocument"]
    assert allowed([ALLOW_ALL, policy], Request(action, "Bucket.Arn/code/x", context)) is expected


@pytest.mark.slow
def test_bucket_is_private_encrypted_and_versioned(deployed: Outputs) -> None:
    bucket = STORAGE.properties("AWS::S3::Bucket")["Bucket"]
    assert bucket["BucketName"] == deployed["storage"]["Bucket"] == stacks.BUCKET
    assert [str(value).lower() for value in bucket["PublicAccessBlockConfiguration"].values()] == ["true"] * 4
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    s3 = boto3.client("s3", region_name=stacks.REGION)
    encryption = s3.get_bucket_encryption(Bucket=stacks.BUCKET)["ServerSideEncryptionConfiguration"]
    (rule,) = encryption["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    kms = boto3.client("kms", region_name=stacks.REGION)
    assert kms.get_key_rotation_status(KeyId=deployed["storage"]["KeyArn"])["KeyRotationEnabled"]


def test_nothing_that_a_rollback_needs_ever_expires() -> None:
    rules = STORAGE.properties("AWS::S3::Bucket")["Bucket"]["LifecycleConfiguration"]["Rules"]
    expiring = {rule.get("Prefix") for rule in rules if "ExpirationInDays" in rule}
    assert expiring == {"embeddings/", "jobs/prepare/", "captures/7d/", "captures/30d/", "captures/90d/"}


def test_new_photos_and_nothing_else_are_announced() -> None:
    bucket = STORAGE.properties("AWS::S3::Bucket")["Bucket"]
    (queue,) = bucket["NotificationConfiguration"]["QueueConfigurations"]
    (rule,) = queue["Filter"]["S3Key"]["Rules"]
    assert queue["Event"] == "s3:ObjectCreated:*"
    assert rule["Value"] == "incoming/"
    # None of the pipeline's own prefixes (docs/contracts.md): its uploads would start it again.
    assert rule["Value"] not in ("datasets/", "weights/", "embeddings/", "code/", "jobs/", "locks/")


@pytest.mark.parametrize(
    ("source", "account", "expected"),
    [
        (f"arn:aws:s3:::{stacks.BUCKET}", stacks.ACCOUNT, True),
        ("arn:aws:s3:::other", stacks.ACCOUNT, False),
        (f"arn:aws:s3:::{stacks.BUCKET}", "999999999999", False),
    ],
)
def test_only_our_bucket_may_write_to_the_queue(source: str, account: str, expected: bool) -> None:
    policy = STORAGE.properties("AWS::SQS::QueuePolicy")["QueuePolicy"]["PolicyDocument"]
    context = {"aws:SourceArn": source, "aws:SourceAccount": account}
    assert allowed([policy], Request("sqs:SendMessage", "Queue.Arn", context)) is expected


@pytest.mark.parametrize(
    ("kind", "logical", "action", "resource"),
    [
        ("AWS::SQS::QueuePolicy", "QueuePolicy", "sqs:ReceiveMessage", "Queue.Arn"),
        ("AWS::SQS::QueuePolicy", "DeadLettersPolicy", "sqs:ReceiveMessage", "DeadLetters.Arn"),
        ("AWS::SNS::TopicPolicy", "TopicPolicy", "sns:Publish", "Topic"),
        ("AWS::S3::BucketPolicy", "AccessLogsPolicy", "s3:GetObject", "AccessLogs.Arn/s3/x"),
    ],
)
def test_queues_topic_and_records_are_reached_by_tls_only(
    kind: str, logical: str, action: str, resource: str
) -> None:
    policies = [ALLOW_ALL, STORAGE.properties(kind)[logical]["PolicyDocument"]]
    assert allowed(policies, Request(action, resource, {"aws:SecureTransport": "true"}))
    assert not allowed(policies, Request(action, resource, {"aws:SecureTransport": "false"}))


def test_requests_are_recorded_on_demand_in_a_bucket_that_only_s3_writes_to() -> None:
    assert "LoggingConfiguration" not in STORAGE.properties("AWS::S3::Bucket")["Bucket"]
    recording = Template("storage", {"AccessLogDays": "90"})
    buckets = recording.properties("AWS::S3::Bucket")
    assert buckets["Bucket"]["LoggingConfiguration"]["DestinationBucketName"] == "AccessLogs"
    assert buckets["AccessLogs"]["LifecycleConfiguration"]["Rules"][0]["ExpirationInDays"] == "90"
    policy = recording.properties("AWS::S3::BucketPolicy")["AccessLogsPolicy"]["PolicyDocument"]
    context = {**TLS, "aws:SourceAccount": stacks.ACCOUNT, "aws:SourceArn": f"arn:aws:s3:::{stacks.BUCKET}"}
    assert allowed([policy], Request("s3:PutObject", "AccessLogs.Arn/s3/x", context))
    other = context | {"aws:SourceArn": "arn:aws:s3:::other"}
    assert not allowed([policy], Request("s3:PutObject", "AccessLogs.Arn/s3/x", other))


def test_s3_and_alarms_may_use_the_key_for_this_account_only() -> None:
    policy = STORAGE.properties("AWS::KMS::Key")["Key"]["KeyPolicy"]
    services = [statement for statement in policy["Statement"] if "Service" in statement["Principal"]]
    (statement,) = services
    assert statement["Principal"]["Service"] == ["s3.amazonaws.com", "cloudwatch.amazonaws.com"]
    only = {"Statement": services}
    assert allowed([only], Request("kms:GenerateDataKey", "*", {"aws:SourceAccount": stacks.ACCOUNT}))
    assert not allowed([only], Request("kms:GenerateDataKey", "*", {"aws:SourceAccount": "999999999999"}))
    assert not allowed([only], Request("kms:ScheduleKeyDeletion", "*", {"aws:SourceAccount": stacks.ACCOUNT}))


@pytest.mark.slow
def test_a_message_that_cannot_be_handled_is_kept(deployed: Outputs) -> None:
    sqs = boto3.client("sqs", region_name=stacks.REGION)
    attributes = sqs.get_queue_attributes(QueueUrl=deployed["storage"]["QueueUrl"], AttributeNames=["All"])
    assert "new-photos-dead" in attributes["Attributes"]["RedrivePolicy"]
