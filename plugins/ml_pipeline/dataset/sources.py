"""Photos in S3 as a source, and what was read of them kept on the disk."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_pipeline.aws import s3 as objects
from ml_pipeline.aws.clients import Client
from ml_pipeline.aws.transfers import REQUESTS, Transfers

if TYPE_CHECKING:
    from model_code.data.source import Candidate, Source


@dataclass(frozen=True)
class _InS3:
    """Base of the sources in S3: a boto3 client, an address, and the most requests in flight."""

    s3: Client
    uri: str
    requests: int = REQUESTS

    @cached_property
    def _transfers(self) -> Transfers:
        return Transfers(self.s3)

    def describe(self) -> str:
        """Return the address, for messages."""
        return self.uri

    def _read(self, uri: str) -> bytes:
        """Read an object; see `S3Folder.read`."""
        from botocore.exceptions import ConnectionError, HTTPClientError, IncompleteReadError

        from model_code.data.source import DatasetError

        try:
            return self._transfers.read(uri)
        except (ConnectionError, HTTPClientError, IncompleteReadError) as error:
            # Some of these are OSErrors: the photo would be left out.
            raise DatasetError(f"{uri} cannot be read: {error}; run it again") from error


class S3Folder(_InS3):
    """Photos below an s3:// prefix, one folder per class: a `model_code.data.source.Source`."""

    @cached_property
    def _around(self) -> tuple[list[str], set[str]]:
        """Objects outside the class folders, and the classes: filled while `candidates` lists."""
        return [], set()

    def candidates(self) -> Iterator[Candidate]:
        """Objects of all classes, in the order of their keys; the listing is not kept, since it may be of millions."""
        from model_code.data.source import Candidate, class_name, visible

        stray, classes = self._around
        stray.clear()
        classes.clear()
        bucket, prefix = objects.split_uri(self._prefix())
        for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", []):
                key, size, tag = item["Key"][len(prefix) :], item["Size"], item.get("ETag", "").strip('"')
                # Keys like "//cat/1.jpg" come from prefixes joined with a slash too many.
                folders = [part for part in key.split("/") if part]
                if "/" not in key and visible(key):
                    stray.append(key)
                # The S3 console makes an empty object for a folder.
                if len(folders) + key.endswith("/") > 1 and visible(folders[0]):
                    classes.add(class_name(folders[0]))
                if len(folders) > 1 and not key.endswith("/") and all(map(visible, folders)):
                    yield Candidate(key, class_name(folders[0]), size, f"{size}:{tag}")

    def folders(self) -> list[str]:
        """Return the classes that were listed, with those of which there is only an empty object."""
        return sorted(self._around[1])

    def stray(self) -> list[str]:
        """Return the objects that were listed outside the class folders."""
        return list(self._around[0])

    def read(self, path: str) -> bytes:
        """Return the bytes of one object.

        Raises:
            OSError: It vanished after it was listed.
            ClientError: S3 refuses, or is throttling for longer than a minute.
            DatasetError: The network fails for longer than a minute.
        """
        return self._read(self._prefix() + path)

    def _prefix(self) -> str:
        return self.uri.rstrip("/") + "/"


class S3Table(_InS3):
    """A table in S3 of photos in S3; relative addresses start at its prefix. A `model_code.data.source.Source`."""

    def candidates(self) -> Iterator[Candidate]:
        """The photos of the table, in its order. Those that S3 does not list are found missing when they are read.

        Raises:
            DatasetError: There is no such table, or its lines are wrong.
        """
        from model_code.data.source import Candidate, DatasetError
        from model_code.data.tables import read_table

        if not objects.exists(self.s3, self.uri):
            raise DatasetError(f"{self.uri} does not exist; point DATA at a table or a prefix of photos")
        rows = read_table(self.uri, objects.read(self.s3, self.uri))
        if foreign := next(
            (row for row in rows if "://" in row.path and not row.path.startswith("s3://")), None
        ):
            raise DatasetError(
                f"{self.uri}, line {foreign.line}: {foreign.path} is not in S3; upload it first"
            )
        stamps = self._stamps({self._address(row.path).rpartition("/")[0] + "/" for row in rows})
        for row in rows:
            size, stamp = stamps.get(self._address(row.path), (0, ""))
            yield Candidate(row.path, row.label, size, stamp)

    def stray(self) -> list[str]:
        """Return nothing: a table has no files outside its classes."""
        return []

    def read(self, path: str) -> bytes:
        """Return the bytes of one object; see `S3Folder.read`."""
        return self._read(self._address(path))

    def _address(self, path: str) -> str:
        return path if "://" in path else f"{self.uri.rpartition('/')[0]}/{path.lstrip('/')}"

    def _stamps(self, folders: set[str]) -> dict[str, tuple[int, str]]:
        """Size and stamp of the objects of some folders, by address: a request per thousand, not one each."""
        found = {}
        for folder in sorted(folders):
            bucket, prefix = objects.split_uri(folder)
            pages = self.s3.get_paginator("list_objects_v2").paginate(
                Bucket=bucket, Prefix=prefix, Delimiter="/"
            )
            for page in pages:
                for item in page.get("Contents", []):
                    tag = item.get("ETag", "").strip('"')
                    found[f"s3://{bucket}/{item['Key']}"] = (item["Size"], f"{item['Size']}:{tag}")
        return found


class Spooled:
    """A source that keeps what it read on the local disk, so that writing the shards reads nothing twice.

    It keeps at most half of the space that is free; the rest is read again.
    """

    def __init__(self, source: Source, folder: Path) -> None:
        self._source = source
        self._file = (folder / "photos.spool").open("w+b")
        self._room = shutil.disk_usage(folder).free // 2
        # On disk, too: the places of a million paths would take 250 MB.
        self._places = sqlite3.connect(folder / "places", isolation_level=None, check_same_thread=False)
        self._places.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
            "CREATE TABLE places (path BLOB PRIMARY KEY, start INTEGER, size INTEGER) WITHOUT ROWID"
        )
        self._end = 0
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def read(self, path: str) -> bytes:
        """Return the bytes of one file; the second time from the disk."""
        key = os.fsencode(path)
        with self._lock:
            place = self._places.execute("SELECT start, size FROM places WHERE path = ?", (key,)).fetchone()
        if place:
            return os.pread(self._file.fileno(), place[1], place[0])
        data = self._source.read(path)
        with self._lock:
            start, self._end = self._end, self._end + len(data)
        if start + len(data) <= self._room and data:
            try:
                if os.pwrite(self._file.fileno(), data, start) < len(data):
                    raise OSError(errno.ENOSPC, "only a part of the photo fits")
                with self._lock:
                    self._places.execute(
                        "INSERT OR REPLACE INTO places VALUES (?, ?, ?)", (key, start, len(data))
                    )
            except (OSError, sqlite3.OperationalError):
                self._room = 0  # others have filled the disk: the rest is read again
        return data

    def close(self) -> None:
        """Give the space back."""
        self._file.close()
        self._places.close()


def check_region(s3: Client, data: str, region: str) -> None:
    """Check that a job of a region can read the photos below an s3:// prefix.

    Raises:
        DatasetError: Their bucket is in another region.
    """
    from botocore.exceptions import ClientError

    from model_code.data.source import DatasetError

    bucket, _ = objects.split_uri(data)
    try:
        found = s3.head_bucket(Bucket=bucket).get("BucketRegion", region)
    except ClientError:
        return  # reading it says why
    if found != region:
        raise DatasetError(
            f"the bucket {bucket} is in {found}, and jobs in {region} cannot read it: copy the photos to a bucket of "
            f"{region}, or set prepare_instance_type=worker"
        )


def is_prefix(data: str) -> bool:
    """Tell whether an address is an s3:// prefix with a folder of photos per class, and not a table."""
    from model_code.data.tables import is_table

    return data.startswith("s3://") and not is_table(data)


def source_of(s3: Client, data: str) -> Source:
    """Return the source at an address: a folder or a table, on disk or in S3."""
    from model_code.data.scan import local_source

    if not data.startswith("s3://"):
        return local_source(data)
    return S3Folder(s3, data) if is_prefix(data) else S3Table(s3, data)
