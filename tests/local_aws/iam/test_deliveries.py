"""`--iam enforce`: what services deliver to queues and topics, who publishes, and public access to buckets."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local_aws.s3.public_access import is_public
from tests.infra.stacks import ACCOUNT, REGION
from tests.local_aws.cloud import eventually, unique
from tests.local_aws.iam.enforced import Account
from tests.local_aws.iam.test_resource_policies import allow, denied, policy, user

STRANGER = {"AWS": "arn:aws:iam::999999999999:root"}


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    options = ("--cores", "2", "--iam", "enforce", "--region", REGION)
    running = Account(tmp_path_factory.mktemp("deliveries"), options)
    running.start()
    yield running
    running.stop()


def bucket(account: Account) -> str:
    name = unique("bucket")
    account.s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    return name


class Inbox:
    """A queue, who may send to it, and what it got."""

    def __init__(self, account: Account) -> None:
        self.sqs = account.client("sqs")
        name = unique("inbox")
        self.url = self.sqs.create_queue(QueueName=name)["QueueUrl"]
        self.arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"
        self.got: list[str] = []

    def admit(self, service: str, source: str) -> None:
        conditions = {"ArnLike": {"aws:SourceArn": source}, "StringEquals": {"aws:SourceAccount": ACCOUNT}}
        principal = {"Service": service}
        grant = allow("sqs:SendMessage", self.arn, Principal=principal, Condition=conditions)
        self.sqs.set_queue_attributes(QueueUrl=self.url, Attributes={"Policy": policy(grant)})

    def holds(self, text: str) -> bool:
        found = self.sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10).get("Messages", [])
        self.got += [message["Body"] for message in found]
        return any(text in body for body in self.got)


def test_a_bucket_announces_only_to_queues_that_admit_it(account: Account) -> None:
    inbox, name, other = Inbox(account), bucket(account), bucket(account)
    rules = {"QueueConfigurations": [{"QueueArn": inbox.arn, "Events": ["s3:ObjectCreated:*"]}]}
    put = account.s3.put_bucket_notification_configuration

    def refused(place: str) -> bool:
        with pytest.raises(ClientError) as caught:
            put(Bucket=place, NotificationConfiguration=rules)
        return caught.value.response["Error"]["Code"] == "InvalidArgument"

    assert refused(name)
    inbox.admit("s3.amazonaws.com", f"arn:aws:s3:::{name}")
    assert refused(other)
    put(Bucket=name, NotificationConfiguration=rules)
    account.s3.put_object(Bucket=name, Key="announced", Body=b"1")
    eventually(lambda: inbox.holds("announced"))
    inbox.admit("s3.amazonaws.com", f"arn:aws:s3:::{other}")
    account.s3.put_object(Bucket=name, Key="unheard", Body=b"1")
    put(Bucket=other, NotificationConfiguration=rules)
    account.s3.put_object(Bucket=other, Key="of-the-other", Body=b"1")
    eventually(lambda: inbox.holds("of-the-other"))
    assert not inbox.holds("unheard")


def test_a_rule_reaches_only_queues_that_admit_it(account: Account) -> None:
    events, inbox, name = account.client("events"), Inbox(account), unique("rule")
    source = unique("source")
    rule = events.put_rule(Name=name, EventPattern=json.dumps({"source": [source]}))["RuleArn"]
    events.put_targets(Rule=name, Targets=[{"Id": "1", "Arn": inbox.arn}])

    def announce(detail: str) -> None:
        entry = {"Source": source, "DetailType": "test", "Detail": json.dumps({"is": detail})}
        events.put_events(Entries=[entry])

    announce("without")
    inbox.admit("sns.amazonaws.com", rule)
    announce("of another service")
    inbox.admit("events.amazonaws.com", f"{rule}-other")
    announce("of another rule")
    inbox.admit("events.amazonaws.com", rule)
    announce("admitted")
    eventually(lambda: inbox.holds("admitted"))
    assert len(inbox.got) == 1


def test_a_topic_reaches_only_queues_that_admit_it(account: Account) -> None:
    sns, inbox = account.client("sns"), Inbox(account)
    topic = sns.create_topic(Name=unique("topic"))["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=inbox.arn)
    sns.publish(TopicArn=topic, Message="without")
    inbox.admit("sns.amazonaws.com", topic)
    sns.publish(TopicArn=topic, Message="admitted")
    eventually(lambda: inbox.holds("admitted"))
    assert not inbox.holds("without")


def test_a_topics_policy_says_who_publishes(account: Account) -> None:
    sns = account.client("sns")
    topic = sns.create_topic(Name=unique("topic"))["TopicArn"]
    theirs, arn = user(account)
    mighty, _ = user(account, allow("sns:*"))
    assert denied(theirs.client("sns").publish, TopicArn=topic, Message="1")
    mighty.client("sns").publish(TopicArn=topic, Message="1")
    granted = allow("sns:Publish", topic, Principal={"AWS": arn})
    refused = {**allow("sns:Publish", topic, Principal="*"), "Effect": "Deny"}
    refused["Condition"] = {"ArnNotEquals": {"aws:PrincipalArn": arn}}
    sns.set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=policy(granted, refused))
    theirs.client("sns").publish(TopicArn=topic, Message="1")
    assert denied(theirs.client("sns").delete_topic, TopicArn=topic)
    assert denied(mighty.client("sns").publish, TopicArn=topic, Message="1")


def test_an_alarm_tells_only_topics_that_admit_it(account: Account) -> None:
    sns, cloudwatch = account.client("sns"), account.client("cloudwatch")
    inboxes, topics = [], []
    for _ in range(3):
        inbox, topic = Inbox(account), sns.create_topic(Name=unique("topic"))["TopicArn"]
        inbox.admit("sns.amazonaws.com", topic)
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=inbox.arn)
        inboxes.append(inbox)
        topics.append(topic)
    closed, named, _default = topics
    for topic, principal in ((closed, STRANGER), (named, {"Service": "cloudwatch.amazonaws.com"})):
        text = policy(allow("sns:Publish", topic, Principal=principal))
        sns.set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=text)
    name = unique("alarm")
    cloudwatch.put_metric_alarm(
        AlarmName=name, Namespace=name, MetricName="Errors", Statistic="Sum", Period=60, EvaluationPeriods=1,
        Threshold=1, ComparisonOperator="GreaterThanOrEqualToThreshold", AlarmActions=topics,
    )  # fmt: skip
    cloudwatch.put_metric_data(Namespace=name, MetricData=[{"MetricName": "Errors", "Value": 3.0}])
    # The actions are carried out in order: the closed topic's turn came first.
    for inbox in inboxes[1:]:
        eventually(lambda inbox=inbox: inbox.holds(name))
    assert not inboxes[0].holds(name)


def read(url: str) -> int:
    try:
        with urllib.request.urlopen(url) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_public_policy_needs_an_open_bucket(account: Account) -> None:
    name = bucket(account)
    for key in ("public/a", "private/a"):
        account.s3.put_object(Bucket=name, Key=key, Body=b"1")
    public, private = f"{account.url}/{name}/public/a", f"{account.url}/{name}/private/a"
    grant = policy(allow("s3:GetObject", f"arn:aws:s3:::{name}/public/*", Principal="*"))
    assert read(public) == 403
    assert denied(account.s3.put_bucket_policy, Bucket=name, Policy=grant)
    account.s3.delete_public_access_block(Bucket=name)
    account.s3.put_bucket_policy(Bucket=name, Policy=grant)
    assert account.s3.get_bucket_policy_status(Bucket=name)["PolicyStatus"]["IsPublic"]
    assert (read(public), read(private)) == (200, 403)
    assert read(f"{account.url}/{name}") == 403
    theirs, _ = user(account)
    restricted = {"RestrictPublicBuckets": True, "BlockPublicPolicy": False}
    account.s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=restricted)
    assert read(public) == 403
    assert theirs.s3.get_object(Bucket=name, Key="public/a")["Body"].read() == b"1"


@pytest.mark.parametrize(("statement", "public"), [
    ({"Principal": "*"}, True),
    ({"Principal": {"AWS": "*"}}, True),
    ({"Principal": {"AWS": ["arn:aws:iam::123456789012:root", "*"]}}, True),
    ({"NotPrincipal": STRANGER}, True),
    ({"Principal": STRANGER}, False),
    ({"Principal": {"Service": "s3.amazonaws.com"}}, False),
    ({"Principal": "*", "Effect": "Deny"}, False),
    ({"Principal": "*", "Condition": {"StringEquals": {"aws:SourceAccount": ["1", "2"]}}}, False),
    ({"Principal": "*", "Condition": {"StringLike": {"aws:SourceArn": "arn:aws:s3:::*"}}}, True),
    ({"Principal": "*", "Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}, False),
    ({"Principal": "*", "Condition": {"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}}}, True),
    ({"Principal": "*", "Condition": {"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}, True),
    ({"Principal": "*", "Condition": {"Bool": {"aws:SecureTransport": "true"}}}, True),
    ({"Principal": "*", "Condition": {"StringEquals": {"aws:PrincipalOrgID": "o-1"}}}, False),
], ids=range(14))  # fmt: skip
def test_which_policies_are_public(statement: dict[str, Any], public: bool) -> None:
    document = {"Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "*", **statement}}
    assert is_public(document) is public
