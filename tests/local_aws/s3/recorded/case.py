"""A recorded answer of S3, and what is there before the requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

BUCKET, VERSIONED = "recorded", "recorded-versions"
BODY = b"something-a"
ETAG = '"8d777f385d3dfec8815d20f7496026dc"'
"""Of b"data"."""
PART = 5 * 2**20
FUTURE, PAST = datetime.now(UTC) + timedelta(days=1), datetime(2020, 1, 1, tzinfo=UTC)
UNMET = "At least one of the pre-conditions you specified did not hold"
NO_UPLOAD = (
    "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or "
    "completed."
)
BAD_RANGE = (
    "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the "
    "zero-based offsets of the first and last bytes to copy"
)


@dataclass(frozen=True)
class Case:
    """A request and the recorded facts of its answer; `status` 200 means no error."""

    snapshot: str
    call: Callable[[Any], Any]
    status: int = 200
    code: str = ""
    message: str = ""
    members: dict[str, Any] = field(default_factory=dict)


class Fixture:
    """State that the requests find: two buckets, some keys, and a multipart upload with one small part."""

    def __init__(self, s3: Any) -> None:
        s3.create_bucket(Bucket=BUCKET)
        s3.create_bucket(Bucket=VERSIONED)
        s3.put_bucket_versioning(Bucket=VERSIONED, VersioningConfiguration={"Status": "Enabled"})
        for key in ("test/bar/foo/123", "test/foo/bar/123", "test/foo/bar/456", "test/foo/123"):
            s3.put_object(Bucket=BUCKET, Key=key, Body=BODY, ChecksumAlgorithm="CRC32")
        s3.put_object(Bucket=BUCKET, Key="object", Body=b"data", ChecksumAlgorithm="CRC32")
        s3.put_object(Bucket=BUCKET, Key="ten", Body=b"0123456789")
        self.old = [
            s3.put_object(Bucket=VERSIONED, Key="key", Body=body)["VersionId"] for body in (b"one", b"data")
        ]
        s3.delete_object(Bucket=VERSIONED, Key="gone")
        self.upload = s3.create_multipart_upload(Bucket=BUCKET, Key="multi")["UploadId"]
        self.part = s3.upload_part(
            Bucket=BUCKET, Key="multi", UploadId=self.upload, PartNumber=1, Body=b"data"
        )["ETag"]


def error(
    snapshot: str, call: Callable[[Any], Any], status: int, code: str, message: str = "", **members: Any
) -> Case:
    return Case(snapshot, call, status, code, message, members)


def ok(snapshot: str, call: Callable[[Any], Any], **members: Any) -> Case:
    return Case(snapshot, call, 200, "", "", members)


def keys(*names: str) -> Callable[[dict[str, Any]], bool]:
    return lambda answer: [item["Key"] for item in answer.get("Contents", [])] == list(names)


def prefixes(*names: str) -> Callable[[dict[str, Any]], bool]:
    return lambda answer: [item["Prefix"] for item in answer.get("CommonPrefixes", [])] == list(names)
