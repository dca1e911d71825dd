"""The versions of one data set in S3: read the newest, publish the next."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml_pipeline.aws import s3 as objects

if TYPE_CHECKING:
    from model_code.data.manifest import Version
    from model_code.data.scan import Known

_LOST_RACE = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})


class ConcurrentUpload(RuntimeError):
    """Another upload of the data set finished between this one's start and its end."""


@dataclass(frozen=True)
class Place:
    """The folder of data set `name` in a bucket.

    Attributes:
        s3: A boto3 client.
        bucket: The bucket.
        name: Name of the data set.
    """

    s3: Any
    bucket: str
    name: str

    def uri(self, key: str) -> str:
        """s3:// URI of `key` below the data set."""
        return f"s3://{self.bucket}/{self.key(key)}"

    def key(self, key: str) -> str:
        """Key in the bucket of `key` below the data set."""
        return f"datasets/{self.name}/{key}"

    def put(self, key: str, body: str | bytes, **condition: str) -> int:
        """Write one small object; returns its size in bytes."""
        data = body.encode() if isinstance(body, str) else body
        self.s3.put_object(Bucket=self.bucket, Key=self.key(key), Body=data, **condition)
        return len(data)

    def newest(self) -> tuple[Version | None, str | None]:
        """Read the newest version and the ETag of the pointer to it; None and None for a new data set.

        Raises:
            ManifestError: It is damaged or from a newer release.
        """
        from model_code.data.manifest import Manifest, Version, read_photos_jsonl
        from model_code.data.shards import Split

        if not objects.exists(self.s3, self.uri("latest.json")):
            return None, None
        pointer = self.s3.get_object(Bucket=self.bucket, Key=self.key("latest.json"))
        folder = f"versions/{json.loads(pointer['Body'].read())['version']}"
        retired = objects.read_json(self.s3, self.uri(f"{folder}/retired.json"))
        version = Version(
            manifest=Manifest.from_json(objects.read(self.s3, self.uri(f"{folder}/manifest.json"))),
            photos=read_photos_jsonl(objects.read(self.s3, self.uri(f"{folder}/photos.jsonl"))),
            retired={sha256: Split(split) for sha256, split in retired.items()},
        )
        return version, pointer["ETag"]

    def looks(self, version: Version | None) -> Known:
        """Read the findings of the look that made a version; none for versions of earlier releases."""
        from model_code.data import looks

        if version is None:
            return {}
        uri = self.uri(f"versions/{version.manifest.version}/looks.jsonl.gz")
        return looks.from_bytes(objects.read(self.s3, uri)) if objects.exists(self.s3, uri) else {}

    def keep_looks(self, version: Version, looks: Known) -> None:
        """Write the findings of the look that made a version, for the next look."""
        from model_code.data.looks import to_bytes

        self.put(f"versions/{version.manifest.version}/looks.jsonl.gz", to_bytes(looks))

    def publish(self, version: Version, tag: str | None) -> int:
        """Write the version's files, the manifest and the pointer last; returns their bytes.

        Args:
            version: The version.
            tag: ETag of the pointer that the version grew from.

        Raises:
            ConcurrentUpload: The pointer has changed since.
        """
        from botocore.exceptions import ClientError

        from model_code.data.manifest import photos_jsonl
        from model_code.data.shards import Split

        folder = f"versions/{version.manifest.version}"
        size = self.put(f"{folder}/photos.jsonl", photos_jsonl(version.photos))
        size += self.put(f"{folder}/retired.json", json.dumps(dict(version.retired), sort_keys=True))
        for split in Split:
            listed = version.manifest.manifest_file(split, self.bucket)
            size += self.put(f"{folder}/{split.value}.manifest", json.dumps(listed))
        size += self.put(f"{folder}/manifest.json", version.manifest.to_json())
        condition = {"IfMatch": tag} if tag else {"IfNoneMatch": "*"}
        try:
            return size + self.put(
                "latest.json", json.dumps({"version": version.manifest.version}), **condition
            )
        except ClientError as error:
            if error.response["Error"]["Code"] not in _LOST_RACE:
                raise
            raise ConcurrentUpload(
                f"another upload of data set {self.name!r} finished meanwhile; run this one again: it uploads only "
                "what is missing"
            ) from error
