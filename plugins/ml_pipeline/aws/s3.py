"""S3 for tasks: the bucket, JSON documents, ManifestFiles, listings."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

from ml_pipeline.aws.clients import Client
from ml_pipeline.errors import is_transient
from ml_pipeline.settings import LOCAL_REGION, Settings

WEEK_SECONDS = 7 * 86400  # the longest that AWS signs an address for


def split_uri(uri: str) -> tuple[str, str]:
    """Split an s3:// URI into bucket and key.

    Raises:
        ValueError: `uri` is not an s3:// URI.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise ValueError(f"{uri!r} is not an S3 address; write s3://bucket/key")
    return bucket, key


def exists(s3: Client, uri: str) -> bool:
    """Return True if there is an object at `uri`."""
    from botocore.exceptions import ClientError

    bucket, key = split_uri(uri)
    try:
        s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return False
        raise
    return True


def read(s3: Client, uri: str) -> bytes:
    """Read the bytes at `uri`."""
    bucket, key = split_uri(uri)
    body: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    return body


def read_json(s3: Client, uri: str) -> Any:
    """Read the JSON document at `uri`."""
    return json.loads(read(s3, uri))


def write_json(s3: Client, uri: str, document: Any) -> None:
    """Write `document` as JSON."""
    bucket, key = split_uri(uri)
    body = json.dumps(document, separators=(",", ":")).encode()
    s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType="application/json")


def write_manifest(s3: Client, uri: str, prefix: str, names: Sequence[str]) -> None:
    """Write a SageMaker ManifestFile that lists the objects `prefix` + each of `names`."""
    write_json(s3, uri, [{"prefix": prefix}, *names])


def keys(s3: Client, prefix_uri: str) -> Iterator[str]:
    """Yield the keys under an s3:// prefix, relative to it."""
    for key, _ in sizes(s3, prefix_uri):
        yield key


def sizes(s3: Client, prefix_uri: str) -> Iterator[tuple[str, int]]:
    """Yield (key relative to the prefix, bytes) of the objects under an s3:// prefix."""
    bucket, prefix = split_uri(prefix_uri)
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", []):
            yield item["Key"][len(prefix) :], item["Size"]


def folders(s3: Client, prefix_uri: str) -> Iterator[str]:
    """Yield the names of the "folders" directly under an s3:// prefix that ends with a slash."""
    bucket, prefix = split_uri(prefix_uri)
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
    for page in pages:
        for item in page.get("CommonPrefixes", []):
            yield item["Prefix"][len(prefix) :].rstrip("/")


def ensure_bucket(settings: Settings, s3: Client) -> None:
    """Check that the bucket exists; create it on local_aws.

    Raises:
        ValueError: There is no such bucket on AWS, or another account owns it.
        ClientError: S3 cannot tell now; see `errors.is_transient`.
    """
    from botocore.exceptions import ClientError

    try:
        s3.head_bucket(Bucket=settings.bucket)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404 and settings.local:
            s3.create_bucket(Bucket=settings.bucket)
            return
        if is_transient(error):
            raise
        raise ValueError(
            f"cannot use the bucket {settings.bucket!r} ({error}); create it with infra/ "
            "or set ML_PIPELINE_BUCKET"
        ) from error


def local_address(settings: Settings, uri: str) -> str:
    """Return the signed address under which a browser gets an object from local_aws."""
    bucket, key = split_uri(uri)
    return presigned(f"{settings.local_aws_public_url}/{bucket}/{quote(key)}")


def presigned(url: str) -> str:
    """Sign the address of an object in local_aws for a week, with the key of the environment where there is one."""
    from botocore.auth import S3SigV4QueryAuth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if not (key and secret):
        return url
    request = AWSRequest("GET", url)
    S3SigV4QueryAuth(Credentials(key, secret), "s3", LOCAL_REGION, expires=WEEK_SECONDS).add_auth(request)
    return str(request.url)
