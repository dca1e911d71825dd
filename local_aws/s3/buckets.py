"""Buckets and their configurations in the index."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from local_aws.s3.errors import S3Error
from local_aws.s3.index import Index
from local_aws.s3.objects import check_bucket_name

FORGIVING_REGION = "us-east-1"


class Versioning(Enum):
    """A bucket's versioning status."""

    OFF = ""
    ENABLED = "Enabled"
    SUSPENDED = "Suspended"


@dataclass(frozen=True)
class Bucket:
    """One bucket. `created` in epoch seconds."""

    name: str
    created: float
    region: str
    versioning: Versioning


class Buckets:
    """The buckets of one store."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def get(self, name: str) -> Bucket:
        """Return one bucket. Raises NoSuchBucket."""
        rows = self._index.read("SELECT * FROM buckets WHERE name = ?", (name,))
        if not rows:
            raise S3Error("NoSuchBucket", BucketName=name)
        return _bucket(rows[0])

    def all(self) -> list[Bucket]:
        """Return every bucket, by name."""
        return [_bucket(row) for row in self._index.read("SELECT * FROM buckets ORDER BY name")]

    def create(self, name: str, region: str) -> Bucket:
        """Make a bucket. Raises InvalidBucketName; BucketAlreadyOwnedByYou (not in us-east-1, as S3 does)."""
        check_bucket_name(name)
        bucket = Bucket(name, time.time(), region, Versioning.OFF)

        def insert(connection: sqlite3.Connection) -> Bucket:
            existing = find(connection, name)
            if existing is not None:
                if existing.region == region == FORGIVING_REGION:
                    return existing
                raise S3Error("BucketAlreadyOwnedByYou", BucketName=name)
            connection.execute("INSERT INTO buckets VALUES (?,?,?,?)", (name, bucket.created, region, ""))
            return bucket

        return self._index.write(insert)

    def delete(self, name: str) -> list[str]:
        """Remove an empty bucket and return the blobs of its unfinished uploads.

        Raises:
            S3Error: NoSuchBucket, BucketNotEmpty.
        """

        def remove(connection: sqlite3.Connection) -> list[str]:
            require(connection, name)
            if connection.execute("SELECT 1 FROM versions WHERE bucket = ? LIMIT 1", (name,)).fetchone():
                is_versioned = require(connection, name).versioning is not Versioning.OFF
                more = ". You must delete all versions in the bucket." if is_versioned else ""
                text = f"The bucket you tried to delete is not empty{more}"
                raise S3Error("BucketNotEmpty", text, BucketName=name)
            theirs = "upload IN (SELECT id FROM uploads WHERE bucket = ?)"
            parts = connection.execute(f"SELECT blob FROM parts WHERE {theirs}", (name,)).fetchall()
            connection.execute(f"DELETE FROM parts WHERE {theirs}", (name,))
            connection.execute("DELETE FROM uploads WHERE bucket = ?", (name,))
            connection.execute("DELETE FROM configurations WHERE bucket = ?", (name,))
            connection.execute("DELETE FROM buckets WHERE name = ?", (name,))
            return [blob for (blob,) in parts]

        return self._index.write(remove)

    def set_versioning(self, name: str, status: Versioning) -> None:
        """Change the versioning status. Raises NoSuchBucket."""

        def update(connection: sqlite3.Connection) -> None:
            require(connection, name)
            connection.execute("UPDATE buckets SET versioning = ? WHERE name = ?", (status.value, name))

        self._index.write(update)

    def configuration(self, name: str, kind: str) -> Any:
        """Return the configuration stored under `kind`, or None. Raises NoSuchBucket."""
        rows = self._index.read("SELECT body FROM configurations WHERE bucket = ? AND kind = ?", (name, kind))
        if not rows:
            self.get(name)
            return None
        return json.loads(rows[0][0])

    def configure(self, name: str, kind: str, document: Any) -> None:
        """Store a configuration, or with None remove it. Raises NoSuchBucket."""

        def update(connection: sqlite3.Connection) -> None:
            require(connection, name)
            if document is None:
                connection.execute("DELETE FROM configurations WHERE bucket = ? AND kind = ?", (name, kind))
            else:
                connection.execute(
                    "INSERT OR REPLACE INTO configurations VALUES (?,?,?)", (name, kind, json.dumps(document))
                )

        self._index.write(update)

    def configured(self, kind: str) -> Mapping[str, Any]:
        """Bucket name -> document, for every bucket with a configuration of that kind."""
        rows = self._index.read("SELECT bucket, body FROM configurations WHERE kind = ?", (kind,))
        return {bucket: json.loads(body) for bucket, body in rows}


def find(connection: sqlite3.Connection, name: str) -> Bucket | None:
    """Return one bucket, inside a transaction."""
    row = connection.execute("SELECT * FROM buckets WHERE name = ?", (name,)).fetchone()
    return None if row is None else _bucket(row)


def require(connection: sqlite3.Connection, name: str) -> Bucket:
    """Return one bucket, inside a transaction. Raises NoSuchBucket."""
    bucket = find(connection, name)
    if bucket is None:
        raise S3Error("NoSuchBucket", BucketName=name)
    return bucket


def _bucket(row: tuple[Any, ...]) -> Bucket:
    name, created, region, versioning = row
    return Bucket(name, created, region, Versioning(versioning))
