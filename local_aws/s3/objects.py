"""Metadata of an object version, an upload and a part."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from local_aws.s3.checksums import Algorithm
from local_aws.s3.errors import S3Error

NULL_VERSION = "null"
LONGEST_KEY_BYTES = 1024
LARGEST_METADATA_BYTES = 2048
MOST_TAGS = 10

_TAG = re.compile(r"[\w\s+\-=.:/@]*")
_RESERVED = "Your TagKey cannot be prefixed with aws:"
STORAGE_CLASSES = frozenset(
    {"STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER", "DEEP_ARCHIVE",
     "GLACIER_IR"}
)  # fmt: skip
ARCHIVED = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Classes whose objects can be read only after a restore, which local_aws does not have."""
_VERSION_ID = re.compile(r"[0-9a-f]{32}")
_BUCKET_NAME = re.compile(r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
_IP_ADDRESS = re.compile(r"^\d+\.\d+\.\d+\.\d+$")


@dataclass(frozen=True)
class Attributes:
    """The part of an object that clients choose.

    headers: stored response headers by lower-case name (content-type, cache-control...). metadata: user
    metadata. checksums: algorithm value -> base64. parts: sizes of the parts of a multipart object. marker: a
    delete marker.
    """

    headers: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    checksums: Mapping[str, str] = field(default_factory=dict)
    checksum_type: str = "FULL_OBJECT"
    parts: tuple[int, ...] = ()
    marker: bool = False

    def to_json(self) -> str:
        """Members that differ from their defaults."""
        return json.dumps({key: value for key, value in vars(self).items() if value != _DEFAULTS[key]})

    @classmethod
    def from_json(cls, text: str) -> Attributes:
        """Return the inverse of `to_json`."""
        stored: dict[str, Any] = json.loads(text)
        if "parts" in stored:
            stored["parts"] = tuple(stored["parts"])
        return cls(**stored)

    def with_checksums(self, values: Mapping[Algorithm, str], kind: str = "FULL_OBJECT") -> Attributes:
        """Return a copy that carries these checksums."""
        named = {algorithm.value: value for algorithm, value in values.items()}
        return replace(self, checksums=named, checksum_type=kind)


_DEFAULTS = vars(Attributes())


@dataclass(frozen=True)
class Version:
    """One version of an object, as a row of the index. `modified` in epoch seconds; `etag` without quotes."""

    bucket: str
    key: str
    sequence: int
    version: str
    latest: bool
    blob: str
    size: int
    etag: str
    modified: float
    attributes: Attributes

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> Version:
        """From `SELECT * FROM versions`."""
        bucket, key, sequence, version, latest, blob, size, etag, modified, attributes = row
        parsed = Attributes.from_json(attributes)
        return cls(bucket, key, sequence, version, bool(latest), blob, size, etag, modified, parsed)

    def to_row(self) -> tuple[Any, ...]:
        """Return the inverse of `from_row`."""
        v = self
        attributes = v.attributes.to_json()
        return (
            v.bucket,
            v.key,
            v.sequence,
            v.version,
            int(v.latest),
            v.blob,
            v.size,
            v.etag,
            v.modified,
            attributes,
        )

    @property
    def quoted_etag(self) -> str:
        """The ETag as headers and XML carry it."""
        return f'"{self.etag}"'


@dataclass(frozen=True)
class Part:
    """One uploaded part. `modified` in epoch seconds; `checksums`: algorithm value -> base64."""

    number: int
    blob: str
    size: int
    etag: str
    modified: float
    checksums: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Upload:
    """A multipart upload under way; `algorithm` and `checksum_type` are "" where the client chose none."""

    id: str
    bucket: str
    key: str
    created: float
    attributes: Attributes
    algorithm: str = ""
    checksum_type: str = ""

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> Upload:
        """From `SELECT * FROM uploads`."""
        upload_id, bucket, key, created, text = row
        document = json.loads(text)
        attributes = Attributes.from_json(json.dumps(document["attributes"]))
        return cls(
            upload_id, bucket, key, created, attributes, document["algorithm"], document["checksum_type"]
        )


def check_bucket_name(name: str) -> None:
    """Raises InvalidBucketName by the rules for general purpose buckets."""
    if not _BUCKET_NAME.match(name) or ".." in name or _IP_ADDRESS.match(name) or name.startswith("xn--"):
        raise S3Error("InvalidBucketName", BucketName=name)


def check_key(key: str) -> None:
    """Raises KeyTooLongError above 1,024 bytes of UTF-8."""
    size = len(key.encode("utf-8", "surrogatepass"))
    if size > LONGEST_KEY_BYTES:
        raise S3Error("KeyTooLongError", Size=str(size), MaxSizeAllowed=str(LONGEST_KEY_BYTES))


def check_version_id(version: str | None) -> None:
    """Raise InvalidArgument for a text that no version can have as its id."""
    if version is not None and version != NULL_VERSION and not _VERSION_ID.fullmatch(version):
        text = "Invalid version id specified"
        raise S3Error("InvalidArgument", text, ArgumentName="versionId", ArgumentValue=version)


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Raises MetadataTooLarge above 2 KB of names and values."""
    size = sum(len(name.encode()) + len(value.encode()) for name, value in metadata.items())
    if size > LARGEST_METADATA_BYTES:
        raise S3Error("MetadataTooLarge", Size=str(size), MaxSizeAllowed=str(LARGEST_METADATA_BYTES))


def check_tags(tags: Mapping[str, str], most: int = MOST_TAGS) -> None:
    """Check tags against S3's limits: 128 and 256 characters, 10 per object.

    Raises:
        S3Error: InvalidTag, or BadRequest for too many.
    """
    if len(tags) > most:
        raise S3Error("InvalidTag", f"Object tags cannot be greater than {most}")
    for key, value in tags.items():
        if not 1 <= len(key) <= 128 or not _TAG.fullmatch(key):
            raise S3Error("InvalidTag", "The TagKey you have provided is invalid", TagKey=key)
        if key.lower().startswith("aws:"):
            system = "System tags cannot be added/updated by requester"
            raise S3Error("InvalidTag", system if most > MOST_TAGS else _RESERVED, TagKey=key)
        if len(value) > 256 or not _TAG.fullmatch(value):
            raise S3Error(
                "InvalidTag", "The TagValue you have provided is invalid", TagKey=key, TagValue=value
            )
