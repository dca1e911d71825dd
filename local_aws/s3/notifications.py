"""Event notifications of buckets, delivered to SQS in the form S3 gives them."""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import quote_plus

from local_aws.context import Context
from local_aws.gateway.responses import iso_time
from local_aws.s3 import xml
from local_aws.s3.body import read_document
from local_aws.s3.errors import S3Error, not_implemented
from local_aws.s3.http import Request, Response
from local_aws.s3.objects import Version
from local_aws.s3.store import S3Store
from local_aws.settings import ACCOUNT_ID

logger = logging.getLogger(__name__)

Send = Callable[[str, str, str], None]
"""(queue ARN, message body, bucket) -> None; raises when there is no such queue, or its policy refuses S3."""

_KIND = "notification"
_ROOT = "NotificationConfiguration"
_REPEATED = frozenset({"QueueConfiguration", "Event", "FilterRule"})
_REFUSED = ("TopicConfiguration", "CloudFunctionConfiguration", "EventBridgeConfiguration")


class Notifications:
    """Watches a store and sends events from its own thread, so that no put waits for a queue."""

    def __init__(self, store: S3Store, send: Send | None) -> None:
        self._store = store
        self._send = send
        self._waiting: queue.SimpleQueue[tuple[str, str, str] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._configured = dict(store.buckets.configured(_KIND))
        store.on_event(self._on_event)

    def start(self) -> None:
        """Begin to send."""
        self._thread = threading.Thread(target=self._deliver, name="s3 notifications", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send what waits, then stop."""
        self._waiting.put(None)
        if self._thread is not None:
            self._thread.join(timeout=5)

    def put_configuration(self, store: S3Store, request: Request) -> Response:
        """PutBucketNotificationConfiguration: every new queue gets s3:TestEvent, and must take it."""
        body = read_document(request)
        parsed = xml.parse(body, _ROOT, _REPEATED) if body.strip() else {}
        for name in _REFUSED:
            if name in parsed:
                raise not_implemented(f"{name} in a notification configuration")
        rules = [_rule(item) for item in parsed.get("QueueConfiguration", [])]
        _check_overlaps(rules)
        store.buckets.get(request.bucket)
        if request.headers.get("x-amz-skip-destination-validation", "").lower() != "true":
            for arn in {rule["Queue"] for rule in rules}:
                self._test(request.bucket, arn)
        store.buckets.configure(request.bucket, _KIND, rules or None)
        self._configured[request.bucket] = rules
        return Response(200)

    def _test(self, bucket: str, arn: str) -> None:
        event = {
            "Service": "Amazon S3",
            "Event": "s3:TestEvent",
            "Time": iso_time(time.time()),
            "Bucket": bucket,
            "RequestId": uuid.uuid4().hex[:16].upper(),
            "HostId": uuid.uuid4().hex,
        }
        try:
            if self._send is None:
                raise LookupError("no queues here")
            self._send(arn, json.dumps(event), bucket)
        except Exception as error:
            raise S3Error(
                "InvalidArgument",
                "Unable to validate the following destination configurations",
                ArgumentName=arn,
                ArgumentValue=f"The destination queue does not exist or cannot be reached ({error})",
            ) from error

    def _on_event(self, event: str, version: Version) -> None:
        for rule in self._configured.get(version.bucket, ()):
            if _applies(rule, event, version.key):
                region = self._store.buckets.get(version.bucket).region
                message = {"Records": [record(event, version, rule["Id"], region)]}
                self._waiting.put((rule["Queue"], json.dumps(message), version.bucket))

    def _deliver(self) -> None:
        while (item := self._waiting.get()) is not None:
            arn, body, bucket = item
            try:
                if self._send is not None:
                    self._send(arn, body, bucket)
            except Exception:
                logger.exception("an S3 event could not be sent to %s", arn)


def get_configuration(store: S3Store, request: Request) -> Response:
    """GetBucketNotificationConfiguration."""
    rules = store.buckets.configuration(request.bucket, _KIND) or []
    configurations = [
        {
            "Id": rule["Id"],
            "Queue": rule["Queue"],
            "Event": rule["Events"],
            "Filter": {
                "S3Key": {"FilterRule": [{"Name": name, "Value": value} for name, value in rule["Filter"]]}
            }
            if rule["Filter"]
            else None,
        }
        for rule in rules
    ]
    return Response.xml(xml.document(_ROOT, {"QueueConfiguration": configurations}))


def record(event: str, version: Version, configuration: str, region: str) -> dict[str, Any]:
    """Return one record of an event message, version 2.1. The key is URL-encoded, "/" excepted, as S3 does."""
    described: dict[str, Any] = {
        "key": quote_plus(version.key, safe="/"),
        "sequencer": f"{version.sequence:016X}",
    }
    if event.startswith("ObjectCreated"):
        described |= {"size": version.size, "eTag": version.etag}
    if version.version != "null":
        described["versionId"] = version.version
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": region,
        "eventTime": iso_time(time.time()),
        "eventName": event,
        "userIdentity": {"principalId": f"AWS:{ACCOUNT_ID}"},
        "requestParameters": {"sourceIPAddress": "127.0.0.1"},
        "responseElements": {
            "x-amz-request-id": uuid.uuid4().hex[:16].upper(),
            "x-amz-id-2": uuid.uuid4().hex,
        },
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": configuration,
            "bucket": {
                "name": version.bucket,
                "ownerIdentity": {"principalId": ACCOUNT_ID},
                "arn": f"arn:aws:s3:::{version.bucket}",
            },
            "object": described,
        },
    }


def _rule(item: dict[str, Any]) -> dict[str, Any]:
    arn, events = item.get("Queue", ""), item.get("Event", [])
    if not arn.startswith("arn:aws:sqs:") or not events:
        raise S3Error(
            "InvalidArgument", "The ARN is not well formed", ArgumentName="Queue", ArgumentValue=arn
        )
    for event in events:
        if not event.startswith(("s3:ObjectCreated:", "s3:ObjectRemoved:")):
            raise not_implemented(f"The event {event}")
    found = item.get("Filter") or {}
    filters = (found.get("S3Key") or {}).get("FilterRule", []) if isinstance(found, dict) else []
    if any(not isinstance(rule, dict) or not {"Name", "Value"} <= set(rule) for rule in filters):
        raise S3Error("MalformedXML")
    pairs = [(str(rule["Name"]).lower(), str(rule["Value"])) for rule in filters]
    for rule in filters:
        if str(rule["Name"]).lower() not in ("prefix", "suffix"):
            text = "filter rule name must be either prefix or suffix"
            raise S3Error(
                "InvalidArgument", text, ArgumentName="FilterRule.Name", ArgumentValue=str(rule["Name"])
            )
    names = [name for name, _ in pairs]
    if len(names) != len(set(names)):
        raise S3Error("InvalidArgument", "Cannot specify more than one prefix or suffix rule in a filter.")
    return {"Id": item.get("Id") or str(uuid.uuid4()), "Queue": arn, "Events": events, "Filter": pairs}


def _check_overlaps(rules: list[dict[str, Any]]) -> None:
    """Refuse two configurations of which an event could meet both. Raises InvalidArgument."""
    for number, one in enumerate(rules):
        for other in rules[number + 1 :]:
            if _share_events(one, other) and _share_keys(dict(one["Filter"]), dict(other["Filter"])):
                raise S3Error(
                    "InvalidArgument",
                    "Configurations overlap. Configurations on the same bucket cannot share a common event type.",
                )


def _share_events(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return any(
        first == second or first.startswith(second.rstrip("*")) or second.startswith(first.rstrip("*"))
        for first in one["Events"]
        for second in other["Events"]
    )


def _share_keys(one: dict[str, str], other: dict[str, str]) -> bool:
    first, second = one.get("prefix", ""), other.get("prefix", "")
    last, end = one.get("suffix", ""), other.get("suffix", "")
    prefixes = first.startswith(second) or second.startswith(first)
    return prefixes and (last.endswith(end) or end.endswith(last))


def _applies(rule: dict[str, Any], event: str, key: str) -> bool:
    named = f"s3:{event}"
    if not any(
        wanted == named or (wanted.endswith("*") and named.startswith(wanted[:-1]))
        for wanted in rule["Events"]
    ):
        return False
    return all(
        key.startswith(value) if name == "prefix" else key.endswith(value) for name, value in rule["Filter"]
    )


def queue_sender(context: Context) -> Send:
    """Return the function that sends a bucket's events to the queue with a given ARN."""

    def send(arn: str, body: str, bucket: str) -> None:
        if not context.admits("s3.amazonaws.com", arn, f"arn:aws:s3:::{bucket}"):
            raise PermissionError("the queue's policy does not let s3.amazonaws.com send to it")
        region, name = arn.split(":")[3], arn.rpartition(":")[2]
        sqs = context.client("sqs", region)
        sqs.send_message(QueueUrl=sqs.get_queue_url(QueueName=name)["QueueUrl"], MessageBody=body)

    return send
