"""A model of S3 and of an SQS queue."""

# ruff: noqa: N803 - the names of parameters are those of AWS.
from __future__ import annotations

import hashlib
import io
import random
from dataclasses import dataclass
from typing import Any

from tests.simulator.errors import refuse


@dataclass
class Message:
    """A message of the queue: hidden until `visible`, gone once `deleted`."""

    body: str
    visible: float
    receipt: str = ""
    deleted: bool = False


class Storage:
    """S3 with conditional writes, and a queue that delivers again what is not deleted."""

    objects: dict[str, bytes]
    queue: list[Message]
    now: float
    random: random.Random

    def s3_get_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        if Key not in self.objects:
            raise refuse("NoSuchKey", "none", 404)
        return {"Body": io.BytesIO(self.objects[Key]), "ETag": etag(self.objects[Key])}

    def s3_head_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        if Key not in self.objects:
            raise refuse("404", "Not Found", 404)
        return {"ContentLength": len(self.objects[Key])}

    def s3_put_object(self, Bucket: str, Key: str, Body: bytes, **options: str) -> dict[str, Any]:
        held = self.objects.get(Key)
        if "IfNoneMatch" in options and held is not None:
            raise refuse("PreconditionFailed", "it exists", 412)
        if "IfMatch" in options and (held is None or etag(held) != options["IfMatch"]):
            raise refuse("PreconditionFailed", "it changed", 412)
        self.objects[Key] = Body
        return {}

    def s3_delete_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        self.objects.pop(Key, None)
        return {}

    def s3_list_objects_v2(
        self, Bucket: str, Prefix: str, StartAfter: str = "", MaxKeys: int = 1000
    ) -> dict[str, Any]:
        found = sorted(key for key in self.objects if key.startswith(Prefix) and key > StartAfter)
        return {"Contents": [{"Key": key, "Size": len(self.objects[key])} for key in found]}

    def sqs_receive_message(
        self, QueueUrl: str, MaxNumberOfMessages: int, WaitTimeSeconds: int, VisibilityTimeout: int
    ) -> dict[str, Any]:
        there = [message for message in self.queue if not message.deleted and message.visible <= self.now]
        taken = there[: self.random.randint(1, MaxNumberOfMessages)]
        for message in taken:
            message.visible = self.now + VisibilityTimeout
            message.receipt = f"{self.queue.index(message)}-{self.random.random()}"
        return {"Messages": [{"ReceiptHandle": message.receipt, "Body": message.body} for message in taken]}

    def sqs_delete_message_batch(self, QueueUrl: str, Entries: list[dict[str, str]]) -> dict[str, Any]:
        for entry in Entries:
            message = self.queue[int(entry["ReceiptHandle"].split("-")[0])]
            # The handle of an earlier delivery deletes as well: SQS promises neither that it does nor that it does not.
            if message.receipt == entry["ReceiptHandle"] or self.random.random() < 0.5:
                message.deleted = True
        return {}


def etag(body: bytes) -> str:
    return hashlib.md5(body).hexdigest()
