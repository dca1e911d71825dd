"""An S3 of moto with photos in it, for tests of data sets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import boto3
from moto import mock_aws

from model_code.data.manifest import Manifest
from tests.model_code.photo_files import photo

BUCKET = "photos"


@contextmanager
def bucket() -> Iterator[Any]:
    """A client whose bucket BUCKET is empty."""
    with mock_aws():
        client = boto3.client("s3", "us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
        client.create_bucket(Bucket=BUCKET)
        yield client


class Store:
    """Photos below prefixes of the bucket, and the versions made of them."""

    def __init__(self, s3: Any) -> None:
        self.s3 = s3

    def source(self, name: str, files: Mapping[str, bytes]) -> str:
        """Put `files` below in/<name>/ in place of what was there; returns the prefix."""
        prefix = f"in/{name}/"
        for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix):
            for item in page.get("Contents", []):
                if item["Key"].removeprefix(prefix) not in files:
                    self.s3.delete_object(Bucket=BUCKET, Key=item["Key"])
        for key, data in files.items():
            self.s3.put_object(Bucket=BUCKET, Key=prefix + key, Body=data)
        return f"s3://{BUCKET}/{prefix}"

    def read(self, uri: str) -> bytes:
        """The bytes of an object."""
        body: bytes = self.s3.get_object(Bucket=BUCKET, Key=uri.removeprefix(f"s3://{BUCKET}/"))[
            "Body"
        ].read()
        return body

    def manifest(self, result: Any) -> Manifest:
        """The manifest of an upload."""
        return Manifest.from_json(self.read(result["manifest_uri"]))

    def rows(self, result: Any) -> dict[str, dict[str, Any]]:
        """The lines of photos.jsonl by SHA-256."""
        text = self.read(result["manifest_uri"].replace("manifest.json", "photos.jsonl")).decode()
        return {row["sha256"]: row for row in map(json.loads, text.splitlines())}


def shapes(count: int = 8) -> dict[str, bytes]:
    """Different photos of two classes, by path."""
    return {
        f"{label}/{number}.jpg": photo(100 * place + number)
        for place, label in enumerate(("circle", "square"))
        for number in range(count)
    }


def sha(data: bytes) -> str:
    """SHA-256 in hex digits."""
    return hashlib.sha256(data).hexdigest()
