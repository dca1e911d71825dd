"""Multipart uploads: parts are blobs of their own until completion joins them into one."""

from __future__ import annotations

import itertools
import json
import secrets
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import md5

from local_aws.s3 import buckets
from local_aws.s3.blobs import CHUNK, Blob, Blobs
from local_aws.s3.checksums import Algorithm, Digests, composite
from local_aws.s3.errors import S3Error
from local_aws.s3.index import Index
from local_aws.s3.objects import Attributes, Part, Upload

SMALLEST_PART = 5 * 1024 * 1024
MOST_PARTS = 10_000


@dataclass(frozen=True)
class WantedPart:
    """A part as CompleteMultipartUpload lists it; `checksums` are those the client repeated."""

    number: int
    etag: str
    checksums: Mapping[Algorithm, str]


@dataclass(frozen=True)
class Joined:
    """A completed upload, before it becomes a version: its blob, ETag and attributes."""

    upload: Upload
    blob: Blob
    etag: str
    attributes: Attributes


class Multipart:
    """The uploads under way of one store."""

    def __init__(self, index: Index, blobs: Blobs) -> None:
        self._index = index
        self._blobs = blobs

    def create(
        self, bucket: str, key: str, attributes: Attributes, algorithm: str = "", checksum_type: str = ""
    ) -> Upload:
        """Begin an upload. Raises NoSuchBucket."""
        upload = Upload(
            secrets.token_urlsafe(48), bucket, key, time.time(), attributes, algorithm, checksum_type
        )

        def insert(connection: sqlite3.Connection) -> None:
            buckets.require(connection, bucket)
            document = {
                "attributes": asdict(attributes),
                "algorithm": algorithm,
                "checksum_type": checksum_type,
            }
            row = (upload.id, bucket, key, upload.created, json.dumps(document))
            connection.execute("INSERT INTO uploads VALUES (?,?,?,?,?)", row)

        self._index.write(insert)
        return upload

    def get(self, bucket: str, key: str, upload_id: str) -> Upload:
        """Return one upload. Raises NoSuchUpload."""
        rows = self._index.read(
            "SELECT * FROM uploads WHERE id = ? AND bucket = ? AND key = ?", (upload_id, bucket, key)
        )
        if not rows:
            raise S3Error("NoSuchUpload", UploadId=upload_id)
        return Upload.from_row(rows[0])

    def put_part(
        self, upload: Upload, number: int, blob: Blob, etag: str, checksums: Mapping[str, str]
    ) -> Part:
        """Keep a finished blob as a part, in place of an earlier one of that number."""
        part = Part(number, blob.id, blob.size, etag, time.time(), checksums)

        def insert(connection: sqlite3.Connection) -> list[str]:
            if not connection.execute("SELECT 1 FROM uploads WHERE id = ?", (upload.id,)).fetchone():
                raise S3Error("NoSuchUpload", UploadId=upload.id)
            place = (upload.id, number)
            old = connection.execute(
                "SELECT blob FROM parts WHERE upload = ? AND number = ?", place
            ).fetchall()
            row = (*place, blob.id, blob.size, etag, part.modified, json.dumps(checksums))
            connection.execute("INSERT OR REPLACE INTO parts VALUES (?,?,?,?,?,?,?)", row)
            return [name for (name,) in old]

        self._blobs.remove(self._index.write(insert))
        return part

    def parts(self, upload: Upload, after: int = 0, limit: int = MOST_PARTS) -> list[Part]:
        """Parts in order of number."""
        rows = self._index.read(
            "SELECT * FROM parts WHERE upload = ? AND number > ? ORDER BY number LIMIT ?",
            (upload.id, after, limit),
        )
        return [Part(row[1], row[2], row[3], row[4], row[5], json.loads(row[6])) for row in rows]

    def abort(self, upload: Upload) -> None:
        """Forget an upload and its parts. Raises NoSuchUpload when it is already gone."""
        self._blobs.remove(self._index.write(lambda connection: forget(connection, upload.id)))

    def join(self, upload: Upload, wanted: Sequence[WantedPart]) -> Joined:
        """Check the list of parts and join them in a new blob, written and flushed.

        Raises InvalidPart, InvalidPartOrder, EntityTooSmall, MalformedXML.
        """
        chosen = self._choose(upload, wanted)
        with self._blobs.writing() as blob:
            self._blobs.concatenate(blob, [(part.blob, part.size) for part in chosen])
            attributes = self._checksummed(upload, chosen, blob)
            blob.finish()
        sizes = tuple(part.size for part in chosen)
        attributes = Attributes(**{**vars(attributes), "parts": sizes})
        return Joined(upload, blob, joined_etag([part.etag for part in chosen]), attributes)

    def _choose(self, upload: Upload, wanted: Sequence[WantedPart]) -> list[Part]:
        if not wanted:
            raise S3Error("InvalidRequest", "You must specify at least one part")
        numbers = [part.number for part in wanted]
        if any(later <= earlier for earlier, later in itertools.pairwise(numbers)):
            raise S3Error("InvalidPartOrder", UploadId=upload.id)
        uploaded = {part.number: part for part in self.parts(upload)}
        chosen = []
        for want in wanted:
            part = uploaded.get(want.number)
            if part is None or part.etag != want.etag.strip('"') or not _agrees(part, want):
                raise S3Error(
                    "InvalidPart", UploadId=upload.id, PartNumber=str(want.number), ETag=want.etag.strip('"')
                )
            chosen.append(part)
        for part in chosen[:-1]:
            if part.size < SMALLEST_PART:
                raise S3Error(
                    "EntityTooSmall",
                    ProposedSize=str(part.size),
                    MinSizeAllowed=str(SMALLEST_PART),
                    PartNumber=str(part.number),
                    ETag=part.etag,
                )
        return chosen

    def _checksummed(self, upload: Upload, parts: Sequence[Part], blob: Blob) -> Attributes:
        if not upload.algorithm:
            return upload.attributes
        algorithm = Algorithm[upload.algorithm]
        if upload.checksum_type == "FULL_OBJECT":
            digests = Digests([algorithm])
            with open(blob.path, "rb") as file:
                while chunk := file.read(CHUNK):
                    digests.update(chunk)
            return upload.attributes.with_checksums(digests.values)
        values = [part.checksums.get(algorithm.value) for part in parts]
        if not all(values):
            return upload.attributes
        whole = composite(algorithm, [value for value in values if value])
        return upload.attributes.with_checksums({algorithm: whole}, "COMPOSITE")


def joined_etag(etags: Sequence[str]) -> str:
    """Return the ETag of an object made of parts: MD5 of their MD5s, and how many. Raises ValueError for no digest."""
    digests = b"".join(map(bytes.fromhex, etags))
    return f"{md5(digests, usedforsecurity=False).hexdigest()}-{len(etags)}"


def forget(connection: sqlite3.Connection, upload_id: str) -> list[str]:
    """Remove an upload from the index; the blobs of its parts. Raises NoSuchUpload."""
    rows = connection.execute("SELECT blob FROM parts WHERE upload = ?", (upload_id,)).fetchall()
    connection.execute("DELETE FROM parts WHERE upload = ?", (upload_id,))
    if connection.execute("DELETE FROM uploads WHERE id = ?", (upload_id,)).rowcount == 0:
        raise S3Error("NoSuchUpload", UploadId=upload_id)
    return [blob for (blob,) in rows]


def _agrees(part: Part, want: WantedPart) -> bool:
    return all(part.checksums.get(algorithm.value) == value for algorithm, value in want.checksums.items())
