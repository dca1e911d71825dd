"""Resource types of CloudFormation that moto lacks or would keep to itself, made by calls to local_aws's own APIs.

A type is an entry of TYPES: how it is made, brought to new properties, and removed. A property that is not known
here is refused, never left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from local_aws.settings import ACCOUNT_ID

Properties = dict[str, Any]
Client = Callable[[str], Any]
"""A service's name -> a boto3 client of this local_aws in the stack's region."""


class Unsupported(Exception):
    """A property or a change of one that cannot be applied; the text says which."""


@dataclass(frozen=True)
class Made:
    """A created resource: its physical id (Ref) and its attributes (Fn::GetAtt)."""

    id: str
    attributes: Mapping[str, str]


@dataclass(frozen=True)
class ResourceType:
    """The properties of a type of resource, and the functions that make, change and remove one.

    Attributes:
        properties: Names of the properties that exist here.
        create: Makes a resource from (client, name, properties); the name serves one that names none itself.
        delete: Removes a resource, given (client, id).
        configure: Sets, given (client, id, properties), the properties that may change later.
    """

    properties: frozenset[str]
    create: Callable[[Client, str, Properties], Made]
    delete: Callable[[Client, str], None]
    configure: Callable[[Client, str, Properties], None] | None = None
    fixed: frozenset[str] = frozenset()
    """Properties that cannot change without another resource."""


def check(kind: str, properties: Properties) -> ResourceType:
    """Return the type of that name. Raises Unsupported for a property that it does not have here."""
    found = TYPES[kind]
    unknown = sorted(set(properties) - found.properties)
    if unknown:
        raise Unsupported(f"local_aws does not support these properties of {kind}: {', '.join(unknown)}")
    return found


# --- S3 ---


def _create_bucket(client: Client, name: str, properties: Properties) -> Made:
    s3 = client("s3")
    bucket = properties.get("BucketName") or name.lower()
    region = s3.meta.region_name
    place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    s3.create_bucket(Bucket=bucket, **place)
    try:
        _configure_bucket(client, bucket, properties)
    except Exception:
        s3.delete_bucket(Bucket=bucket)
        raise
    attributes = {
        "Arn": f"arn:aws:s3:::{bucket}",
        "DomainName": f"{bucket}.s3.amazonaws.com",
        "RegionalDomainName": f"{bucket}.s3.{region}.amazonaws.com",
    }
    return Made(bucket, attributes)


def _configure_bucket(client: Client, bucket: str, properties: Properties) -> None:
    s3 = client("s3")
    for name, apply in _BUCKET_SETTINGS.items():
        if name in properties:
            apply(s3, bucket, properties[name])


_BUCKET_SETTINGS: dict[str, Callable[[Any, str, Any], Any]] = {
    "BucketEncryption": lambda s3, bucket, value: s3.put_bucket_encryption(
        Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": encryption_rules(value)}
    ),
    "VersioningConfiguration": lambda s3, bucket, value: s3.put_bucket_versioning(
        Bucket=bucket, VersioningConfiguration=value
    ),
    "PublicAccessBlockConfiguration": lambda s3, bucket, value: s3.put_public_access_block(
        Bucket=bucket, PublicAccessBlockConfiguration={key: is_true(each) for key, each in value.items()}
    ),
    "OwnershipControls": lambda s3, bucket, value: s3.put_bucket_ownership_controls(
        Bucket=bucket, OwnershipControls=value
    ),
    "LifecycleConfiguration": lambda s3, bucket, value: s3.put_bucket_lifecycle_configuration(
        Bucket=bucket, LifecycleConfiguration={"Rules": [lifecycle_rule(rule) for rule in value["Rules"]]}
    ),
    "NotificationConfiguration": lambda s3, bucket, value: s3.put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration=notification(value)
    ),
    "Tags": lambda s3, bucket, value: s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": value}),
}


def is_true(value: Any) -> bool:
    """CloudFormation's booleans, which templates may write as text."""
    return str(value).lower() == "true"


def encryption_rules(value: Properties) -> list[Properties]:
    """BucketEncryption as PutBucketEncryption wants it."""
    return [
        {
            "ApplyServerSideEncryptionByDefault": rule["ServerSideEncryptionByDefault"],
            "BucketKeyEnabled": is_true(rule.get("BucketKeyEnabled", False)),
        }
        for rule in value["ServerSideEncryptionConfiguration"]
    ]


def lifecycle_rule(rule: Properties) -> Properties:
    """Return a rule of LifecycleConfiguration as PutBucketLifecycleConfiguration wants it."""
    given = dict(rule)
    found: Properties = {"Status": given.pop("Status"), "Filter": {"Prefix": given.pop("Prefix", "")}}
    for name, convert in _LIFECYCLE.items():
        if name in given:
            found |= convert(given.pop(name))
    if given:
        raise Unsupported(f"local_aws does not support these members of a lifecycle rule: {', '.join(given)}")
    return found


_LIFECYCLE: dict[str, Callable[[Any], Properties]] = {
    "Id": lambda value: {"ID": value},
    "AbortIncompleteMultipartUpload": lambda value: {
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": int(value["DaysAfterInitiation"])}
    },
    "NoncurrentVersionExpiration": lambda value: {
        "NoncurrentVersionExpiration": {"NoncurrentDays": int(value["NoncurrentDays"])}
    },
    "ExpirationInDays": lambda value: {"Expiration": {"Days": int(value)}},
    "Transitions": lambda value: {
        "Transitions": [
            {"StorageClass": each["StorageClass"], "Days": int(each["TransitionInDays"])} for each in value
        ]
    },
}


def notification(value: Properties) -> Properties:
    """NotificationConfiguration as PutBucketNotificationConfiguration wants it."""
    if set(value) - {"QueueConfigurations"}:
        raise Unsupported("local_aws announces objects to SQS queues only: give QueueConfigurations")
    return {
        "QueueConfigurations": [
            {"QueueArn": each["Queue"], "Events": [each["Event"]], **_filter(each)}
            for each in value.get("QueueConfigurations", [])
        ]
    }


def _filter(configuration: Properties) -> Properties:
    if "Filter" not in configuration:
        return {}
    return {"Filter": {"Key": {"FilterRules": configuration["Filter"]["S3Key"]["Rules"]}}}


# --- policies and subscriptions ---


def _policy(
    target: str, put: Callable[[Client, str, str], object], delete: Callable[[Client, str], object]
) -> ResourceType:
    """Return the type of a policy document that its property `target` puts on one resource or several."""

    def apply(client: Client, targets: str, properties: Properties) -> None:
        for each in targets.split():
            put(client, each, json.dumps(properties["PolicyDocument"]))

    def create(client: Client, name: str, properties: Properties) -> Made:
        given = properties[target]
        targets = given if isinstance(given, str) else " ".join(given)
        apply(client, targets, properties)
        return Made(targets, {"Id": name})

    def remove(client: Client, targets: str) -> None:
        for each in targets.split():
            delete(client, each)

    return ResourceType(frozenset({target, "PolicyDocument"}), create, remove, apply, frozenset({target}))


def _put_queue_policy(client: Client, url: str, policy: str) -> None:
    client("sqs").set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})


def _put_topic_policy(client: Client, arn: str, policy: str) -> None:
    client("sns").set_topic_attributes(TopicArn=arn, AttributeName="Policy", AttributeValue=policy)


def _create_subscription(client: Client, _name: str, properties: Properties) -> Made:
    found = client("sns").subscribe(ReturnSubscriptionArn=True, **properties)
    return Made(found["SubscriptionArn"], {})


# --- logs and the registry ---


def _create_log_group(client: Client, name: str, properties: Properties) -> Made:
    logs = client("logs")
    group = properties.get("LogGroupName") or name
    logs.create_log_group(logGroupName=group)
    _configure_log_group(client, group, properties)
    return Made(group, {"Arn": f"arn:aws:logs:{logs.meta.region_name}:{ACCOUNT_ID}:log-group:{group}:*"})


def _configure_log_group(client: Client, group: str, properties: Properties) -> None:
    if "RetentionInDays" in properties:
        days = int(properties["RetentionInDays"])
        client("logs").put_retention_policy(logGroupName=group, retentionInDays=days)


def _create_package_group(client: Client, _name: str, properties: Properties) -> Made:
    arn = client("sagemaker").create_model_package_group(**properties)["ModelPackageGroupArn"]
    return Made(arn, {"ModelPackageGroupArn": arn})


# --- alarms ---

_ALARM_NUMBERS: dict[str, Callable[[Any], Any]] = {
    "Period": int,
    "EvaluationPeriods": int,
    "DatapointsToAlarm": int,
    "Threshold": float,
    "ActionsEnabled": is_true,
}


_ALARM = frozenset({
    "AlarmName", "AlarmDescription", "Namespace", "MetricName", "Dimensions", "Statistic", "ExtendedStatistic", "Unit",
    "ComparisonOperator", "TreatMissingData", "AlarmActions", "OKActions", "InsufficientDataActions", *_ALARM_NUMBERS,
})  # fmt: skip


def _put_alarm(client: Client, name: str, properties: Properties) -> None:
    converted = {
        key: _ALARM_NUMBERS.get(key, lambda each: each)(value)
        for key, value in properties.items()
        if key != "AlarmName"
    }
    client("cloudwatch").put_metric_alarm(AlarmName=name, **converted)


def _create_alarm(client: Client, name: str, properties: Properties) -> Made:
    alarm = properties.get("AlarmName") or name
    _put_alarm(client, alarm, properties)
    region = client("cloudwatch").meta.region_name
    return Made(alarm, {"Arn": f"arn:aws:cloudwatch:{region}:{ACCOUNT_ID}:alarm:{alarm}"})


# --- networks ---


_DESTINATIONS = {
    "CidrIp": ("IpRanges", "CidrIp"),
    "DestinationSecurityGroupId": ("UserIdGroupPairs", "GroupId"),
    "DestinationPrefixListId": ("PrefixListIds", "PrefixListId"),
}
"""Property -> the member of a permission that takes it, and the key in there."""


def _create_egress(client: Client, _name: str, properties: Properties) -> Made:
    permission: Properties = {"IpProtocol": str(properties["IpProtocol"])}
    permission |= {key: int(properties[key]) for key in ("FromPort", "ToPort") if key in properties}
    described = {"Description": properties["Description"]} if "Description" in properties else {}
    for name, (member, key) in _DESTINATIONS.items():
        if name in properties:
            permission[member] = [{key: properties[name], **described}]
    answer = client("ec2").authorize_security_group_egress(
        GroupId=properties["GroupId"], IpPermissions=[permission]
    )
    rule = answer["SecurityGroupRules"][0]["SecurityGroupRuleId"]
    return Made(f"{properties['GroupId']}|{rule}", {"Id": rule})


def _delete_egress(client: Client, identifier: str) -> None:
    group, _, rule = identifier.partition("|")
    client("ec2").revoke_security_group_egress(GroupId=group, SecurityGroupRuleIds=[rule])


TYPES: dict[str, ResourceType] = {
    "AWS::S3::Bucket": ResourceType(
        frozenset({"BucketName", *_BUCKET_SETTINGS}),
        _create_bucket,
        lambda client, bucket: client("s3").delete_bucket(Bucket=bucket),
        _configure_bucket,
        frozenset({"BucketName"}),
    ),
    "AWS::S3::BucketPolicy": _policy(
        "Bucket",
        lambda client, bucket, policy: client("s3").put_bucket_policy(Bucket=bucket, Policy=policy),
        lambda client, bucket: client("s3").delete_bucket_policy(Bucket=bucket),
    ),
    "AWS::SQS::QueuePolicy": _policy(
        "Queues", _put_queue_policy, lambda client, url: _put_queue_policy(client, url, "")
    ),
    # SNS gives a topic its default policy back; moto's topics have none that anyone evaluates.
    "AWS::SNS::TopicPolicy": _policy("Topics", _put_topic_policy, lambda _client, _arn: None),
    "AWS::SNS::Subscription": ResourceType(
        frozenset({"TopicArn", "Protocol", "Endpoint"}),
        _create_subscription,
        lambda client, arn: client("sns").unsubscribe(SubscriptionArn=arn),
    ),
    "AWS::CloudWatch::Alarm": ResourceType(
        _ALARM,
        _create_alarm,
        lambda client, alarm: client("cloudwatch").delete_alarms(AlarmNames=[alarm]),
        _put_alarm,
        frozenset({"AlarmName"}),
    ),
    "AWS::EC2::SecurityGroupEgress": ResourceType(
        frozenset({"Description", "GroupId", "IpProtocol", "FromPort", "ToPort", *_DESTINATIONS}),
        _create_egress,
        _delete_egress,
    ),
    "AWS::Logs::LogGroup": ResourceType(
        frozenset({"LogGroupName", "RetentionInDays"}),
        _create_log_group,
        lambda client, group: client("logs").delete_log_group(logGroupName=group),
        _configure_log_group,
        frozenset({"LogGroupName"}),
    ),
    "AWS::SageMaker::ModelPackageGroup": ResourceType(
        frozenset({"ModelPackageGroupName", "ModelPackageGroupDescription", "Tags"}),
        _create_package_group,
        lambda client, arn: client("sagemaker").delete_model_package_group(
            ModelPackageGroupName=arn.rpartition("/")[2]
        ),
    ),
}
