"""The versions of a key: how puts and deletes change them, inside one transaction of the index."""

from __future__ import annotations

import sqlite3
import time
import uuid
from dataclasses import dataclass, replace

from local_aws.s3.buckets import Bucket, Versioning
from local_aws.s3.conditions import Conditions
from local_aws.s3.objects import NULL_VERSION, Attributes, Version

_ROW = "INSERT INTO versions VALUES (?,?,?,?,?,?,?,?,?,?)"


@dataclass(frozen=True)
class Change:
    """Effect of a put or delete: the version created or removed, and blobs no longer referenced."""

    version: Version | None
    freed: tuple[str, ...] = ()
    removed: bool = False


def current(connection: sqlite3.Connection, bucket: str, key: str) -> Version | None:
    """Return the latest version, also when it is a delete marker."""
    row = connection.execute(
        "SELECT * FROM versions WHERE bucket = ? AND key = ? AND latest = 1", (bucket, key)
    ).fetchone()
    return None if row is None else Version.from_row(row)


def visible(version: Version | None) -> Version | None:
    """Return the version, unless it is a delete marker."""
    return None if version is None or version.attributes.marker else version


def put(
    connection: sqlite3.Connection, bucket: Bucket, new: Version, conditions: Conditions, sequence: int
) -> Change:
    """Make `new` the latest version, under a new version id or in place of the null version.

    Raises what `Conditions.check_write` raises.
    """
    before = current(connection, bucket.name, new.key)
    conditions.check_write(new.key, visible(before))
    freed = _make_room(connection, bucket, new.key, before)
    version = replace(
        new, sequence=sequence, version=_new_version_id(bucket.versioning), latest=True, modified=time.time()
    )
    connection.execute(_ROW, version.to_row())
    return Change(version, freed)


def delete_latest(
    connection: sqlite3.Connection, bucket: Bucket, key: str, conditions: Conditions, sequence: int
) -> Change:
    """Delete without a version id: remove the object, or add a delete marker in a versioned bucket."""
    before = current(connection, bucket.name, key)
    if conditions.match is not None:
        conditions.check_write(key, visible(before))
    if bucket.versioning is Versioning.OFF:
        if before is None:
            return Change(None)
        return delete_version(connection, before)
    freed = _make_room(connection, bucket, key, before)
    marker = Version(
        bucket.name,
        key,
        sequence,
        _new_version_id(bucket.versioning),
        True,
        "",
        0,
        "",
        time.time(),
        Attributes(marker=True),
    )
    connection.execute(_ROW, marker.to_row())
    return Change(marker, freed)


def delete_version(connection: sqlite3.Connection, version: Version) -> Change:
    """Remove one version permanently; the next newest becomes the latest."""
    place = (version.bucket, version.key)
    connection.execute(
        "DELETE FROM versions WHERE bucket = ? AND key = ? AND sequence = ?", (*place, version.sequence)
    )
    if version.latest:
        connection.execute(
            "UPDATE versions SET latest = 1 WHERE bucket = ? AND key = ? AND sequence = "
            "(SELECT max(sequence) FROM versions WHERE bucket = ? AND key = ?)",
            (*place, *place),
        )
    return Change(version, (version.blob,) if version.blob else (), removed=True)


def find(connection: sqlite3.Connection, bucket: str, key: str, version_id: str) -> Version | None:
    """Return a version by its id."""
    row = connection.execute(
        "SELECT * FROM versions WHERE bucket = ? AND key = ? AND version = ?", (bucket, key, version_id)
    ).fetchone()
    return None if row is None else Version.from_row(row)


def _new_version_id(versioning: Versioning) -> str:
    return uuid.uuid4().hex if versioning is Versioning.ENABLED else NULL_VERSION


def _make_room(
    connection: sqlite3.Connection, bucket: Bucket, key: str, before: Version | None
) -> tuple[str, ...]:
    """Unmark the latest version and, where the null version is to be replaced, remove it. The blobs freed."""
    if before is None:
        return ()
    connection.execute(
        "UPDATE versions SET latest = 0 WHERE bucket = ? AND key = ? AND latest = 1", (bucket.name, key)
    )
    if bucket.versioning is Versioning.ENABLED:
        return ()
    null = before if before.version == NULL_VERSION else find(connection, bucket.name, key, NULL_VERSION)
    if null is None:
        return ()
    connection.execute(
        "DELETE FROM versions WHERE bucket = ? AND key = ? AND sequence = ?",
        (bucket.name, key, null.sequence),
    )
    return (null.blob,) if null.blob else ()
