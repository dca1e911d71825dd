"""The versions of a data set in S3."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ml_pipeline.aws import s3 as objects
from ml_pipeline.aws.clients import Client
from model_code.data.manifest import Manifest
from model_code.data.shards import MAX_BYTES
from model_code.data.versions.store import ConcurrentUpload, Store, channels_of

__all__ = ["ConcurrentUpload", "Place"]

_LOST_RACE = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})


@dataclass(frozen=True)
class Place(Store):
    """The folder of data set `name` in a bucket.

    Attributes:
        s3: A boto3 client.
        bucket: The bucket.
        name: Name of the data set.
    """

    s3: Client
    bucket: str
    name: str

    def uri(self, key: str) -> str:
        """s3:// URI of `key` below the data set."""
        return f"s3://{self.bucket}/{self.key(key)}"

    def key(self, key: str) -> str:
        """Key in the bucket of `key` below the data set."""
        return f"datasets/{self.name}/{key}"

    def read(self, key: str) -> tuple[bytes, str] | None:
        """Return the bytes of an object and its ETag."""
        from botocore.exceptions import ClientError

        try:
            found = self.s3.get_object(Bucket=self.bucket, Key=self.key(key))
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return None
            raise
        return found["Body"].read(), found["ETag"]

    def open(self, key: str) -> BinaryIO | None:
        """Open an object, once it is on this disk."""
        from botocore.exceptions import ClientError

        file = tempfile.TemporaryFile(prefix="ml-pipeline-object-")  # noqa: SIM115
        try:
            self.s3.download_fileobj(self.bucket, self.key(key), file)
        except ClientError as error:
            file.close()
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return None
            raise
        file.seek(0)
        return file

    def exists(self, key: str) -> bool:
        """Tell whether there is an object."""
        return objects.exists(self.s3, self.uri(key))

    def put(self, key: str, body: bytes) -> None:
        """Write one small object."""
        self.s3.put_object(Bucket=self.bucket, Key=self.key(key), Body=body)

    def swap(self, key: str, body: bytes, tag: str | None) -> bool:
        """Write one small object by S3's conditional writes."""
        from botocore.exceptions import ClientError

        condition = {"IfMatch": tag} if tag else {"IfNoneMatch": "*"}
        try:
            self.s3.put_object(Bucket=self.bucket, Key=self.key(key), Body=body, **condition)
        except ClientError as error:
            if error.response["Error"]["Code"] in _LOST_RACE:
                return False
            raise
        return True

    def put_file(self, key: str, path: Path) -> None:
        """Upload a file: a shard by one request, of which S3 charges each; what is larger in parts."""
        from boto3.s3.transfer import TransferConfig

        whole = TransferConfig(multipart_threshold=2 * MAX_BYTES)
        self.s3.upload_file(str(path), self.bucket, self.key(key), Config=whole)

    def channels(self, manifest: Manifest) -> dict[str, bytes]:
        """See `channels_of`."""
        return channels_of(manifest, self.bucket)
