"""The object store used by the HTTP API and by jobs.

    store = S3Store(state / "s3")
    store.buckets.create("data", "us-east-1")
    store.put_bytes("data", "a/b.txt", b"text")
    store.download_prefix("data", "a/", Path("/somewhere"))

An acknowledged write is on disk: its blob is flushed before the index refers to it, and the index is flushed before
the call returns. Reads never wait for writes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from local_aws.errors import AwsError
from local_aws.s3 import buckets, listing, multipart, versions
from local_aws.s3.blobs import CHUNK, Blob, Blobs, copy_out
from local_aws.s3.buckets import Bucket, Buckets
from local_aws.s3.checksums import Algorithm, Digests
from local_aws.s3.conditions import ALWAYS, Conditions
from local_aws.s3.errors import S3Error, no_such_key
from local_aws.s3.index import Index
from local_aws.s3.listing import Page, Query
from local_aws.s3.multipart import Joined, Multipart
from local_aws.s3.objects import NULL_VERSION, Attributes, Version, check_key, check_tags, check_version_id

DEFAULT_CONTENT_TYPE = "binary/octet-stream"
_ATTEMPTS = 5

_LATEST = "SELECT * FROM versions INDEXED BY versions_latest WHERE bucket = ? AND key = ? AND latest = 1"

Listener = Callable[[str, Version], None]


@dataclass(frozen=True)
class Draft:
    """An object about to be stored: a finished blob and what is known of it."""

    bucket: str
    key: str
    blob: Blob
    etag: str
    attributes: Attributes


@dataclass(frozen=True)
class Deletion:
    """An object, or one version of it, to delete."""

    key: str
    version_id: str | None = None
    conditions: Conditions = ALWAYS


class S3Store:
    """Buckets and objects in one folder. Safe to use from any thread, by one process at a time."""

    def __init__(self, root: Path) -> None:
        """Open or create. Raises StartupError when the folder was written by a newer local_aws."""
        root.mkdir(parents=True, exist_ok=True)
        self.index = Index(root / "index.sqlite")
        self.blobs = Blobs(root / "blobs")
        self.blobs.collect_garbage(self._live_blobs)
        self.buckets = Buckets(self.index)
        self.multipart = Multipart(self.index, self.blobs)
        self._listeners: list[Listener] = []

    def close(self) -> None:
        """Finish what is being written and close the index."""
        self.index.close()

    def on_event(self, listener: Listener) -> None:
        """Call `listener(event name, version)`, such as ("ObjectCreated:Put", version), after each change."""
        self._listeners.append(listener)

    # --- reading ---

    def head(self, bucket: str, key: str, version_id: str | None = None) -> Version:
        """Return one version, the latest by default.

        Raises:
            S3Error: NoSuchBucket, NoSuchKey, NoSuchVersion, MethodNotAllowed (delete marker).
        """
        if version_id is None:
            rows = self.index.read(_LATEST, (bucket, key))
        else:
            check_version_id(version_id)
            query = "SELECT * FROM versions WHERE bucket = ? AND key = ? AND version = ?"
            rows = self.index.read(query, (bucket, key, version_id))
        if not rows:
            self.buckets.get(bucket)
            if version_id is None:
                raise no_such_key(key)
            raise S3Error("NoSuchVersion", Key=key, VersionId=version_id)
        version = Version.from_row(rows[0])
        if version.attributes.marker:
            raise deleted(version, by_id=version_id is not None)
        return version

    def version(self, bucket: str, key: str, version_id: str) -> Version:
        """Return one version, delete markers included. Raises NoSuchVersion."""
        query = "SELECT * FROM versions WHERE bucket = ? AND key = ? AND version = ?"
        rows = self.index.read(query, (bucket, key, version_id))
        if not rows:
            raise S3Error("NoSuchVersion", Key=key, VersionId=version_id)
        return Version.from_row(rows[0])

    def open(self, bucket: str, key: str, version_id: str | None = None) -> tuple[Version, BinaryIO]:
        """Return a version and its bytes. Raises as `head` does."""
        for _ in range(_ATTEMPTS):
            version = self.head(bucket, key, version_id)
            try:
                return version, open(self.blobs.path(version.blob), "rb", buffering=0)  # type: ignore[return-value]
            except FileNotFoundError:
                continue  # replaced between the two steps; the index already names its successor
        raise OSError(f"the bytes of s3://{bucket}/{key} are missing under {self.blobs.path(version.blob)}")

    def link(self, bucket: str, key: str, version_id: str | None = None) -> tuple[Version, Blob]:
        """Return a version and a second blob with its bytes, which the caller stores or discards.

        Raises:
            S3Error: as `head`.
        """
        for _ in range(_ATTEMPTS):
            version = self.head(bucket, key, version_id)
            try:
                return version, self.blobs.link(version.blob, version.size)
            except FileNotFoundError:
                continue
        raise OSError(f"the bytes of s3://{bucket}/{key} are missing under {self.blobs.path(version.blob)}")

    def list_page(self, query: Query) -> Page:
        """Return one page. Raises NoSuchBucket."""
        self.buckets.get(query.bucket)
        return listing.list_page(self.index, query)

    def iterate(self, bucket: str, prefix: str = "") -> Iterator[Version]:
        """Yield every object under a prefix, in order of key. Raises NoSuchBucket."""
        after: tuple[str, int] | None = None
        while True:
            page = self.list_page(Query(bucket, prefix, after=after))
            yield from page.versions
            after = page.next_after
            if after is None:
                return

    # --- writing ---

    def delete_bucket(self, name: str) -> None:
        """Remove an empty bucket with its unfinished uploads. Raises NoSuchBucket, BucketNotEmpty."""
        self.blobs.remove(self.buckets.delete(name))

    def put(self, draft: Draft, conditions: Conditions = ALWAYS, event: str = "Put") -> Version:
        """Store a finished blob as the latest version.

        Raises:
            S3Error: NoSuchBucket, PreconditionFailed, NoSuchKey (If-Match).
        """

        def change(connection: sqlite3.Connection) -> versions.Change:
            bucket = buckets.require(connection, draft.bucket)
            return versions.put(connection, bucket, _unsaved(draft), conditions, self.index.next_sequence())

        return self._apply(change, f"ObjectCreated:{event}", draft.blob)

    def complete(self, joined: Joined, conditions: Conditions = ALWAYS) -> Version:
        """Turn a joined multipart upload into the latest version and forget the upload.

        Raises:
            S3Error: as `put`; NoSuchUpload.
        """
        upload = joined.upload

        def change(connection: sqlite3.Connection) -> versions.Change:
            bucket = buckets.require(connection, upload.bucket)
            parts = multipart.forget(connection, upload.id)
            draft = Draft(upload.bucket, upload.key, joined.blob, joined.etag, joined.attributes)
            done = versions.put(connection, bucket, _unsaved(draft), conditions, self.index.next_sequence())
            return replace(done, freed=(*done.freed, *parts))

        return self._apply(change, "ObjectCreated:CompleteMultipartUpload", joined.blob)

    def delete(
        self, bucket: str, key: str, version_id: str | None = None, conditions: Conditions = ALWAYS
    ) -> versions.Change:
        """Delete an object or one version; as in S3, deleting an absent one is no error.

        Raises:
            S3Error: NoSuchBucket, PreconditionFailed, NoSuchKey (If-Match).
        """
        check_version_id(version_id)
        done = self.delete_all(bucket, [Deletion(key, version_id, conditions)])[0]
        if isinstance(done, AwsError):
            raise done
        return done

    def delete_all(self, bucket: str, wanted: Sequence[Deletion]) -> list[versions.Change | AwsError]:
        """Delete many objects in one commit.

        Returns:
            One result per deletion: the change, or an error where its condition did not hold.

        Raises:
            S3Error: NoSuchBucket.
        """

        def change(connection: sqlite3.Connection) -> list[versions.Change | AwsError]:
            owner = buckets.require(connection, bucket)
            return [self._delete(connection, owner, deletion) for deletion in wanted]

        outcomes = self.index.write(change)
        for done in outcomes:
            if isinstance(done, AwsError) or done.version is None:
                continue
            self.blobs.remove(done.freed)
            self._notify(
                "ObjectRemoved:Delete" if done.removed else "ObjectRemoved:DeleteMarkerCreated", done.version
            )
        return outcomes

    def _delete(
        self, connection: sqlite3.Connection, bucket: Bucket, deletion: Deletion
    ) -> versions.Change | AwsError:
        if deletion.version_id is None:
            sequence = self.index.next_sequence()
            try:
                return versions.delete_latest(connection, bucket, deletion.key, deletion.conditions, sequence)
            except AwsError as error:
                return error
        version = versions.find(connection, bucket.name, deletion.key, deletion.version_id)
        return versions.Change(None) if version is None else versions.delete_version(connection, version)

    def set_tags(self, version: Version, tags: dict[str, str]) -> None:
        """Replace the tags of one version. Raises InvalidTag."""
        check_tags(tags)

        def change(connection: sqlite3.Connection) -> None:
            now = versions.find(connection, version.bucket, version.key, version.version)
            if now is None:
                raise no_such_key(version.key)
            connection.execute(
                "UPDATE versions SET attributes = ? WHERE bucket = ? AND key = ? AND sequence = ?",
                (replace(now.attributes, tags=tags).to_json(), now.bucket, now.key, now.sequence),
            )

        self.index.write(change)

    def _apply(
        self, change: Callable[[sqlite3.Connection], versions.Change], event: str, blob: Blob
    ) -> Version:
        try:
            done = self.index.write(change)
        except BaseException:
            blob.discard()
            raise
        self.blobs.remove(done.freed)
        assert done.version is not None
        self._notify(event, done.version)
        return done.version

    def _notify(self, event: str, version: Version) -> None:
        for listener in self._listeners:
            listener(event, version)

    # --- for jobs, without HTTP ---

    def put_bytes(
        self, bucket: str, key: str, body: bytes, content_type: str = DEFAULT_CONTENT_TYPE
    ) -> Version:
        """Store a small object."""
        return self._put_chunks(bucket, key, iter([body]), content_type)

    def put_file(
        self, bucket: str, key: str, path: Path, content_type: str = DEFAULT_CONTENT_TYPE
    ) -> Version:
        """Store a file's bytes; memory use does not depend on its size."""
        with path.open("rb") as file:
            return self._put_chunks(bucket, key, iter(lambda: file.read(CHUNK), b""), content_type)

    def get_bytes(self, bucket: str, key: str) -> bytes:
        """Return a small object's bytes."""
        _, file = self.open(bucket, key)
        with file:
            return file.read()

    def download(self, bucket: str, key: str, destination: Path) -> Version:
        """Copy an object to a file (its folder must exist). Raises NoSuchBucket, NoSuchKey."""
        for _ in range(_ATTEMPTS):
            version = self.head(bucket, key)
            try:
                copy_out(self.blobs.path(version.blob), destination)
            except FileNotFoundError:
                if not destination.parent.is_dir():
                    raise
                continue
            return version
        raise OSError(f"the bytes of s3://{bucket}/{key} are missing under {self.blobs.path(version.blob)}")

    def download_prefix(self, bucket: str, prefix: str, folder: Path) -> list[str]:
        """Copy every object under a prefix into `folder`, by the rest of its key; the keys copied, in order.

        A rest that is empty (the prefix is a key) takes the key's last part as its name; keys that end in "/"
        are skipped, as are rests that would leave the folder ("..", absolute), which no file name can hold.
        Raises NoSuchBucket.
        """
        done = []
        for version in self.iterate(bucket, prefix):
            rest = version.key[len(prefix) :].lstrip("/") or version.key.rpartition("/")[2]
            if not rest or rest.endswith("/") or not _is_inside(rest):
                continue
            destination = folder / rest
            destination.parent.mkdir(parents=True, exist_ok=True)
            self.download(bucket, version.key, destination)
            done.append(version.key)
        return done

    def _put_chunks(self, bucket: str, key: str, chunks: Iterator[bytes], content_type: str) -> Version:
        check_key(key)
        digests = Digests([Algorithm.CRC64NVME])
        with self.blobs.writing() as blob:
            for chunk in chunks:
                digests.update(chunk)
                blob.write(chunk)
            blob.finish()
            attributes = Attributes(headers={"content-type": content_type}).with_checksums(digests.values)
            return self.put(Draft(bucket, key, blob, digests.md5_hex, attributes))

    def _live_blobs(self, names: list[str]) -> set[str]:
        live: set[str] = set()
        for start in range(0, len(names), 500):
            some = names[start : start + 500]
            marks = ",".join("?" * len(some))
            for table in ("versions", "parts"):
                live.update(
                    row[0]
                    for row in self.index.read(f"SELECT blob FROM {table} WHERE blob IN ({marks})", some)
                )
        return live


def deleted(marker: Version, by_id: bool) -> S3Error:
    """Return the error for reading a delete marker; its header says that it is one."""
    error = S3Error("MethodNotAllowed") if by_id else no_such_key(marker.key)
    error.headers = {"x-amz-delete-marker": "true", "x-amz-version-id": marker.version}
    return error


def _unsaved(draft: Draft) -> Version:
    return Version(
        draft.bucket,
        draft.key,
        0,
        NULL_VERSION,
        True,
        draft.blob.id,
        draft.blob.size,
        draft.etag,
        0.0,
        draft.attributes,
    )


def _is_inside(rest: str) -> bool:
    return not any(part in ("", ".", "..") for part in rest.split("/")) and "\0" not in rest


__all__ = ["Bucket", "Deletion", "Draft", "S3Store"]
