"""One deployment at a time per endpoint: a lock object in S3 whose holder is a DAG run.

Conditional writes make it safe: If-None-Match creates the object, If-Match replaces exactly the one that was read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

from ml_pipeline.aws.clients import Client
from ml_pipeline.aws.s3 import split_uri

# Another run changed the lock between our read and our write; S3 answers 409 while two writes overlap.
_LOST_RACE = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})


@dataclass(frozen=True)
class Holder:
    """The run that deploys."""

    dag_id: str
    run_id: str

    def __str__(self) -> str:
        return f"{self.dag_id}/{self.run_id}"


@dataclass(frozen=True)
class Lock:
    """The lock as it was read: its holder, and the ETag of the object."""

    holder: Holder
    etag: str


def uri(bucket: str, endpoint_name: str) -> str:
    """Return the address of an endpoint's lock."""
    return f"s3://{bucket}/locks/{endpoint_name}.json"


def read(s3: Client, lock_uri: str) -> Lock | None:
    """Read the lock; None if it is free."""
    from botocore.exceptions import ClientError

    bucket, key = split_uri(lock_uri)
    try:
        response = s3.get_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return None
        raise
    return Lock(Holder(**json.loads(response["Body"].read())), response["ETag"])


def acquire(s3: Client, lock_uri: str, me: Holder, is_over: Callable[[Holder], bool]) -> Holder | None:
    """Take the lock if it is free, ours, or held by a run that is over.

    Args:
        s3: boto3 client of S3.
        lock_uri: The object that is the lock.
        me: The run that asks for it.
        is_over: Returns True for a run that has ended, and so will never release its lock.

    Returns:
        None if the lock is ours now, else its holder.
    """
    while True:
        lock = read(s3, lock_uri)
        if lock is None:
            if _write(s3, lock_uri, me, IfNoneMatch="*"):
                return None
        elif lock.holder == me:
            return None
        elif not is_over(lock.holder):
            return lock.holder
        elif _write(s3, lock_uri, me, IfMatch=lock.etag):
            return None


def release(s3: Client, lock_uri: str, me: Holder) -> bool:
    """Release the lock; return False if it was not ours."""
    lock = read(s3, lock_uri)
    if lock is None or lock.holder != me:
        return False
    bucket, key = split_uri(lock_uri)
    s3.delete_object(Bucket=bucket, Key=key)
    return True


def _write(s3: Client, lock_uri: str, holder: Holder, **condition: str) -> bool:
    from botocore.exceptions import ClientError

    bucket, key = split_uri(lock_uri)
    try:
        s3.put_object(Bucket=bucket, Key=key, Body=json.dumps(asdict(holder)).encode(), **condition)
    except ClientError as error:
        if error.response["Error"]["Code"] in _LOST_RACE:
            return False
        raise
    return True
