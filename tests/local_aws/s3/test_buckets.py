"""S3 over HTTP with boto3: buckets, listing, configurations, notifications."""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st

from local_aws.s3.listing import Query, list_page, successor
from local_aws.s3.store import S3Store
from tests.local_aws.s3.s3_server import RunningS3, running_s3


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningS3]:
    with running_s3(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture(scope="module")
def s3(server: RunningS3) -> Any:
    return server.client()


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def test_life_of_a_bucket(s3: Any) -> None:
    s3.create_bucket(Bucket="life")
    s3.create_bucket(Bucket="life")
    s3.get_waiter("bucket_exists").wait(Bucket="life")
    assert s3.get_bucket_location(Bucket="life")["LocationConstraint"] is None
    assert "life" in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    s3.delete_bucket(Bucket="life")
    with pytest.raises(ClientError) as error:
        s3.delete_bucket(Bucket="life")
    assert code(error) == "NoSuchBucket"


def test_bucket_names_and_regions(s3: Any) -> None:
    for name in ("UPPER", "ab", "a..b", "192.168.0.1", "under_score"):
        with pytest.raises(ClientError) as error:
            s3.create_bucket(Bucket=name)
        assert code(error) == "InvalidBucketName"
    with pytest.raises(ClientError) as error:
        s3.create_bucket(Bucket="elsewhere", CreateBucketConfiguration={"LocationConstraint": "us-east-1"})
    assert code(error) == "InvalidLocationConstraint"  # as recorded on S3 (recorded.py)


@pytest.fixture(scope="module")
def tree(s3: Any) -> str:
    s3.create_bucket(Bucket="tree")
    for key in ("a/1", "a/2", "a/b/3", "b", "c/", "c/4", "d e/+%", "z"):
        s3.put_object(Bucket="tree", Key=key, Body=b"x")
    return "tree"


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_listing_by_pages(s3: Any, tree: str, size: int) -> None:
    for operation in ("list_objects", "list_objects_v2"):
        pages = s3.get_paginator(operation).paginate(
            Bucket=tree, Delimiter="/", PaginationConfig={"PageSize": size}
        )
        keys, prefixes = [], []
        for page in pages:
            keys += [entry["Key"] for entry in page.get("Contents", [])]
            prefixes += [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
            assert len(page.get("Contents", [])) + len(page.get("CommonPrefixes", [])) <= size
        assert keys == ["b", "z"]
        assert prefixes == ["a/", "c/", "d e/"]


def test_listing_under_a_prefix(s3: Any, tree: str) -> None:
    page = s3.list_objects_v2(Bucket=tree, Prefix="a/", Delimiter="/")
    assert [entry["Key"] for entry in page["Contents"]] == ["a/1", "a/2"]
    assert page["CommonPrefixes"] == [{"Prefix": "a/b/"}]
    after = s3.list_objects_v2(Bucket=tree, StartAfter="c/", MaxKeys=2)
    assert [entry["Key"] for entry in after["Contents"]] == ["c/4", "d e/+%"]
    assert after["IsTruncated"]
    assert s3.list_objects_v2(Bucket=tree, Prefix="nothing")["KeyCount"] == 0
    with pytest.raises(ClientError) as error:
        s3.list_objects_v2(Bucket=tree, ContinuationToken="made up")
    assert code(error) == "InvalidArgument"


def test_configurations_are_kept_or_refused(s3: Any) -> None:
    s3.create_bucket(Bucket="configured")
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:*"}]}
    with pytest.raises(ClientError) as error:
        s3.get_bucket_policy(Bucket="configured")
    assert code(error) == "NoSuchBucketPolicy"
    block = dict.fromkeys(
        ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
    )
    answer = s3.get_public_access_block(Bucket="configured")
    assert answer["PublicAccessBlockConfiguration"] == block
    with pytest.raises(ClientError) as error:
        s3.put_bucket_policy(Bucket="configured", Policy=json.dumps(policy))
    assert code(error) == "AccessDenied"
    s3.delete_public_access_block(Bucket="configured")
    s3.put_bucket_policy(Bucket="configured", Policy=json.dumps(policy))
    assert json.loads(s3.get_bucket_policy(Bucket="configured")["Policy"]) == policy
    assert s3.get_bucket_policy_status(Bucket="configured")["PolicyStatus"]["IsPublic"]
    s3.delete_bucket_policy(Bucket="configured")
    rules = [{"ID": "r", "Status": "Enabled", "Filter": {"Prefix": "x"}, "Expiration": {"Days": 1}}]
    s3.put_bucket_lifecycle_configuration(Bucket="configured", LifecycleConfiguration={"Rules": rules})
    assert s3.get_bucket_lifecycle_configuration(Bucket="configured")["Rules"] == rules
    s3.put_public_access_block(Bucket="configured", PublicAccessBlockConfiguration=block)
    answer = s3.get_public_access_block(Bucket="configured")
    assert answer["PublicAccessBlockConfiguration"] == block
    encryption = s3.get_bucket_encryption(Bucket="configured")["ServerSideEncryptionConfiguration"]
    assert encryption["Rules"][0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    s3.put_bucket_tagging(Bucket="configured", Tagging={"TagSet": [{"Key": "k", "Value": "v"}]})
    assert s3.get_bucket_tagging(Bucket="configured")["TagSet"] == [{"Key": "k", "Value": "v"}]
    assert s3.get_bucket_acl(Bucket="configured")["Grants"][0]["Permission"] == "FULL_CONTROL"
    for call, arguments in (
        ("put_bucket_replication", {"ReplicationConfiguration": {"Role": "r", "Rules": []}}),
        ("put_bucket_logging", {"BucketLoggingStatus": {}}),
    ):
        with pytest.raises(ClientError) as error:
            getattr(s3, call)(Bucket="configured", **arguments)
        assert code(error) == "NotImplemented"


def test_events_reach_queues_in_s3s_form(tmp_path: Path) -> None:
    sent: queue.Queue[tuple[str, Any]] = queue.Queue()

    def send(arn: str, body: str, _bucket: str) -> None:
        if arn.endswith("absent"):
            raise LookupError("no such queue")
        sent.put((arn, json.loads(body)))

    arn = "arn:aws:sqs:us-east-1:123456789012:events"
    with running_s3(tmp_path, send) as server:
        s3 = server.client()
        s3.create_bucket(Bucket="noisy")
        rule = {
            "QueueArn": arn,
            "Events": ["s3:ObjectCreated:*"],
            "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": "in/"}]}},
        }
        s3.put_bucket_notification_configuration(
            Bucket="noisy", NotificationConfiguration={"QueueConfigurations": [rule]}
        )
        assert sent.get(timeout=10)[1]["Event"] == "s3:TestEvent"
        kept = s3.get_bucket_notification_configuration(Bucket="noisy")["QueueConfigurations"][0]
        assert kept["QueueArn"] == arn
        assert kept["Filter"] == rule["Filter"]
        s3.put_object(Bucket="noisy", Key="out/a", Body=b"1")
        s3.put_object(Bucket="noisy", Key="in/a b+ü.jpg", Body=b"22")
        to, message = sent.get(timeout=10)
        record = message["Records"][0]
        assert to == arn
        assert record["eventName"] == "ObjectCreated:Put"
        assert record["s3"]["object"]["key"] == "in/a+b%2B%C3%BC.jpg"
        assert record["s3"]["object"]["size"] == 2
        with pytest.raises(ClientError) as error:
            s3.put_bucket_notification_configuration(
                Bucket="noisy",
                NotificationConfiguration={"QueueConfigurations": [{**rule, "QueueArn": f"{arn}-absent"}]},
            )
        assert code(error) == "InvalidArgument"
        with pytest.raises(ClientError) as error:
            s3.put_bucket_notification_configuration(
                Bucket="noisy",
                NotificationConfiguration={
                    "LambdaFunctionConfigurations": [
                        {
                            "LambdaFunctionArn": "arn:aws:lambda:us-east-1:123456789012:function:f",
                            "Events": ["s3:*"],
                        }
                    ]
                },
            )
        assert code(error) == "NotImplemented"


KEY = st.text(alphabet="ab/é犬\U0001f415", min_size=1, max_size=6)


@settings(max_examples=15, deadline=None)
@given(keys=st.sets(KEY, max_size=12), prefix=st.text(alphabet="ab/", max_size=2), size=st.integers(1, 4))
def test_listing_agrees_with_a_plain_one(
    tmp_path_factory: pytest.TempPathFactory, keys: set[str], prefix: str, size: int
) -> None:
    store = S3Store(tmp_path_factory.mktemp("listing"))
    store.buckets.create("bucket", "us-east-1")
    for key in keys:
        store.put_bytes("bucket", key, b"")
    ordered = sorted((key for key in keys if key.startswith(prefix)), key=lambda key: key.encode())
    expected: list[str] = []
    for key in ordered:
        at = key.find("/", len(prefix))
        entry = key if at < 0 else key[: at + 1]
        if entry not in expected:
            expected.append(entry)
    found: list[str] = []
    after = None
    while True:
        page = list_page(store.index, Query("bucket", prefix, "/", after, size))
        found += sorted([v.key for v in page.versions] + page.prefixes, key=lambda key: key.encode())
        after = page.next_after
        if after is None:
            break
    store.close()
    assert found == expected


def test_successor() -> None:
    assert successor("a/") == "a0"
    assert successor("a\U0010ffff") == "b"
    assert successor("\U0010ffff") is None
    assert successor("\ud7ff") == "\ue000"


@pytest.mark.slow
def test_listing_a_hundred_thousand_keys_is_linear(tmp_path: Path) -> None:
    with running_s3(tmp_path) as server:
        s3 = server.client()
        s3.create_bucket(Bucket="large")
        fill(server.store, 100_000)
        began = time.monotonic()
        times, count = [], 0
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket="large"):
            count += len(page["Contents"])
            times.append(time.monotonic() - began)
            began = time.monotonic()
    assert count == 100_000
    assert sum(times[-20:]) < 3 * sum(times[:20]), times


def fill(store: S3Store, count: int) -> None:
    """Index entries that share one blob: only the listing is of interest."""
    blob = store.put_bytes("large", "photos/0", b"x")

    def insert(connection: Any) -> None:
        row = list(blob.to_row())
        rows = [[row[0], f"photos/{number:07d}", *row[2:]] for number in range(1, count)]
        marks = ",".join("?" * len(row))
        connection.executemany(f"INSERT INTO versions VALUES ({marks})", rows)

    store.index.write(insert)


def test_buckets_have_no_acls_by_default(s3: Any) -> None:
    s3.create_bucket(Bucket="no-acls")
    s3.put_object(Bucket="no-acls", Key="k", Body=b"", ACL="bucket-owner-full-control")
    for call, arguments in (
        ("put_object", {"Key": "k", "Body": b"", "ACL": "public-read"}),
        (
            "put_object",
            {"Key": "k", "Body": b"", "GrantRead": 'uri="http://acs.amazonaws.com/groups/global/AllUsers"'},
        ),
        ("create_multipart_upload", {"Key": "k", "ACL": "public-read"}),
        ("put_bucket_acl", {"ACL": "public-read"}),
        ("put_object_acl", {"Key": "k", "ACL": "public-read"}),
    ):
        with pytest.raises(ClientError) as error:
            getattr(s3, call)(Bucket="no-acls", **arguments)
        assert code(error) == "AccessControlListNotSupported"


def test_contradictory_notifications_are_refused(tmp_path: Path) -> None:
    with running_s3(tmp_path / "s3", send=lambda _arn, _body, _bucket: None) as server:
        s3 = server.client()
        s3.create_bucket(Bucket="events")

        def configure(*filters: dict[str, str], events: str = "s3:ObjectCreated:*") -> None:
            queues = [
                {
                    "QueueArn": f"arn:aws:sqs:us-east-1:123456789012:q{number}",
                    "Events": [events],
                    "Filter": {"Key": {"FilterRules": [{"Name": n, "Value": v} for n, v in rules.items()]}},
                }
                for number, rules in enumerate(filters)
            ]
            s3.put_bucket_notification_configuration(
                Bucket="events", NotificationConfiguration={"QueueConfigurations": queues}
            )

        configure({"prefix": "a/"}, {"prefix": "b/"})
        configure({"prefix": "a/", "suffix": ".jpg"}, {"prefix": "a/", "suffix": ".png"})
        for filters in (
            ({"prefix": "a/"}, {"prefix": "a/b/"}),
            ({}, {"suffix": ".jpg"}),
            ({"suffix": "g"}, {"suffix": "jpg"}),
        ):
            with pytest.raises(ClientError, match="Configurations overlap") as error:
                configure(*filters)
            assert code(error) == "InvalidArgument"
