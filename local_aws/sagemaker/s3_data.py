"""S3 data of jobs: listing a data source, sharding it among hosts, and transfers."""

from __future__ import annotations

import json
import mimetypes
import posixpath
import random
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import unquote

from botocore.exceptions import BotoCoreError, ClientError

from local_aws.context import Context
from local_aws.errors import validation_error

TRANSFERS = 8
CHUNK_BYTES = 2**20


class DataError(Exception):
    """Data that cannot be moved to or from a job; the text fits a FailureReason."""


@dataclass(frozen=True)
class S3Object:
    """An object and its path relative to its channel's folder."""

    bucket: str
    key: str
    relative: str


def parse_uri(uri: str) -> tuple[str, str]:
    """Split `s3://bucket/some/key` into ("bucket", "some/key").

    Raises:
        DataError: The text is not an S3 URI.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme.lower() != "s3" or not bucket:
        raise DataError(f"{uri!r} is not an S3 URI such as s3://bucket/prefix")
    return bucket, key


def list_prefix(s3: Any, uri: str) -> list[S3Object]:
    """List the objects under a URI with SageMaker's local paths.

    `s3://b/train` and `s3://b/train/` put `train/x/a.jpg` at `x/a.jpg`; a URI that is a whole key puts it at its last
    part.

    Raises:
        DataError: No object is there, or the bucket cannot be read.
    """
    bucket, prefix = parse_uri(uri)
    found: list[S3Object] = []
    try:
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for entry in page.get("Contents", []):
                key = entry["Key"]
                if not key.endswith("/"):
                    found.append(S3Object(bucket, key, _relative(key, prefix)))
    except (ClientError, BotoCoreError) as error:
        raise DataError(
            f"{_nothing_found(uri, bucket)} Error message from S3: {_s3_message(error)}"
        ) from error
    if not found:
        raise DataError(_nothing_found(uri, bucket))
    return found


def list_manifest(s3: Any, uri: str) -> list[S3Object]:
    """List the objects of a ManifestFile: `[{"prefix": "s3://b/p/"}, "a", "b", ...]`.

    Raises:
        DataError: The manifest is malformed or unreadable.
    """
    try:
        entries = json.loads(read_object(s3, uri))
    except ValueError as error:
        raise DataError(f"the manifest {uri} is not JSON: {error}") from error
    if (
        not isinstance(entries, list)
        or not entries
        or not isinstance(entries[0], dict)
        or "prefix" not in entries[0]
    ):
        raise DataError(f'the manifest {uri} must be a list that begins with {{"prefix": "s3://..."}}')
    if not all(isinstance(entry, str) for entry in entries[1:]):
        raise DataError(f"the manifest {uri} must list keys relative to its prefix, as strings")
    bucket, prefix = parse_uri(entries[0]["prefix"])
    return [S3Object(bucket, prefix + entry, entry.lstrip("/")) for entry in entries[1:]]


def list_source(s3: Any, uri: str, data_type: str) -> list[S3Object]:
    """List the objects of an S3DataSource; `data_type` is "S3Prefix" or "ManifestFile"."""
    return list_manifest(s3, uri) if data_type == "ManifestFile" else list_prefix(s3, uri)


def shard(objects: Sequence[S3Object], index: int, hosts: int, seed: int | None = None) -> list[S3Object]:
    """Return the share of host `index` of `hosts` under ShardedByS3Key: every hosts-th object.

    `seed` shuffles the objects first.
    """
    ordered = list(objects)
    if seed is not None:
        random.Random(seed).shuffle(ordered)
    return ordered[index::hosts]


def read_object(s3: Any, uri: str) -> bytes:
    """Read a small object.

    Raises:
        DataError: It cannot be read.
    """
    bucket, key = parse_uri(uri)
    try:
        body: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except (ClientError, BotoCoreError) as error:
        raise DataError(f"{uri} cannot be read: {_s3_message(error)}") from error
    return body


def download(s3: Any, objects: Iterable[S3Object], folder: Path) -> int:
    """Download objects into a folder, several at a time.

    Returns:
        Bytes downloaded.

    Raises:
        DataError: A download failed, or a key would leave the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [(entry, safe_path(folder, entry.relative)) for entry in objects]
    try:
        for _, path in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(TRANSFERS) as pool:
            return sum(pool.map(lambda pair: _download_one(s3, *pair), wanted))
    except OSError as error:
        raise DataError(f"cannot store the data: {error}") from error


def upload_file(s3: Any, file: BinaryIO, name: str, bucket: str, key: str) -> None:
    """Upload one open file with the content type of its name, so that a browser shows a report.

    Raises:
        DataError: The upload failed.
    """
    kind, encoding = mimetypes.guess_type(name)
    extra = {"ContentType": kind} if kind and not encoding else {}
    try:
        s3.upload_fileobj(file, bucket, key, ExtraArgs=extra)
    except Exception as error:  # boto3 wraps its own errors in several unrelated classes
        raise DataError(f"cannot upload to s3://{bucket}/{key}: {_s3_message(error)}") from error


def join(prefix: str, *parts: str | PurePosixPath | Path) -> str:
    """Join keys: `join("a/", "b", "c")` -> `a/b/c`; an empty prefix adds no leading slash."""
    return (
        posixpath.join(prefix.rstrip("/"), *(str(part) for part in parts))
        if prefix
        else "/".join(map(str, parts))
    )


def safe_path(folder: Path, relative: str) -> Path:
    """Return `folder`/`relative`.

    Raises:
        DataError: The path is not inside the folder.
    """
    parts = PurePosixPath(relative).parts
    if not parts or PurePosixPath(relative).is_absolute() or ".." in parts or "\0" in relative:
        raise DataError(f"the key {relative!r} does not name a file inside its channel")
    return folder.joinpath(*parts)


def _download_one(s3: Any, entry: S3Object, path: Path) -> int:
    size = 0
    try:
        body = s3.get_object(Bucket=entry.bucket, Key=entry.key)["Body"]
        with path.open("wb") as file:
            for chunk in body.iter_chunks(CHUNK_BYTES):
                size += file.write(chunk)
    except (ClientError, BotoCoreError) as error:
        raise DataError(
            f"s3://{entry.bucket}/{entry.key} cannot be downloaded: {_s3_message(error)}"
        ) from error
    return size


def _relative(key: str, prefix: str) -> str:
    if prefix.endswith("/") or not prefix:
        return key[len(prefix) :].lstrip("/")
    if key.startswith(prefix + "/"):
        return key[len(prefix) + 1 :].lstrip("/")
    return key[prefix.rfind("/") + 1 :]


def _nothing_found(uri: str, bucket: str, region: str = "", role: str = "") -> str:
    where, owner = (f" ({region})" if region else ""), (f' "{role}"' if role else "")
    return (
        f'No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure that the bucket exists in '
        f"the selected region{where}, that objects exist under that S3 prefix, and that the role{owner} has "
        f'"s3:ListBucket" permissions on bucket "{bucket}".'
    )


def _s3_message(error: BaseException) -> str:
    if isinstance(error, ClientError):
        return str(error.response["Error"].get("Message", error))
    return str(error)


def check_output(uri: str) -> None:
    """Check that a URI names a place in S3.

    Raises:
        AwsError: ValidationException.
    """
    try:
        parse_uri(uri)
    except DataError as error:
        raise validation_error(f"Invalid S3 URI: {error}") from error


def check_input(context: Context, region: str, role: str, uri: str) -> None:
    """Check that objects exist under a URI, as AWS does when a job is created.

    Raises:
        AwsError: ValidationException.
    """
    check_output(uri)
    bucket, prefix = parse_uri(uri)
    try:
        found = context.client("s3", region, role).list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
    except (ClientError, BotoCoreError) as error:
        text = f"{_nothing_found(uri, bucket, region, role)} Error message from S3: {_s3_message(error)}"
        raise validation_error(text) from error
    if not found.get("KeyCount"):
        raise validation_error(_nothing_found(uri, bucket, region, role))


_STYLES = (
    re.compile(
        r"^https://(?P<bucket>[^/]+)\.s3[.-](?:dualstack\.)?(?:[a-z0-9-]+\.)?amazonaws\.com(?:\.cn)?/(?P<key>.+)$"
    ),
    re.compile(
        r"^https://s3[.-](?:dualstack\.)?(?:[a-z0-9-]+\.)?amazonaws\.com(?:\.cn)?/(?P<bucket>[^/]+)/(?P<key>.+)$"
    ),
)


def model_uri(url: str) -> str:
    """Return the S3 URI of a ModelDataUrl, which may be an https address of S3.

    Raises:
        DataError: It is neither an S3 URI nor an address of an object in S3.
    """
    if not url.lower().startswith("https://"):
        parse_uri(url)
        return url
    for style in _STYLES:
        match = style.match(url)
        if match:
            return f"s3://{match['bucket']}/{unquote(match['key'])}"
    raise DataError(f"{url!r} is not the address of an object in S3")


def check_model(context: Context, region: str, role: str, url: str) -> None:
    """Check that model data exist, as AWS does when a model is created.

    Raises:
        AwsError: ValidationException.
    """
    try:
        bucket, key = parse_uri(model_uri(url))
        found = context.client("s3", region, role).list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
        absent = not found.get("KeyCount")
    except DataError as error:
        raise validation_error(f"Invalid model data URL: {error}") from error
    except (ClientError, BotoCoreError):
        absent = True
    if absent:
        raise validation_error(f"Could not find model data at {url}.")
