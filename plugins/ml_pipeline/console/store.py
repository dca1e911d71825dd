"""Read from AWS for the console, and cache each answer as long as it cannot have changed."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

from cachetools import LRUCache, TTLCache

from ml_pipeline.aws import s3 as objects
from ml_pipeline.aws.clients import AwsAccess, Client
from ml_pipeline.settings import Settings

Result = TypeVar("Result")
Item = TypeVar("Item")

# Objects of S3 named by content, versions, jobs: they never change.
_LASTING = 4096
# Photos, findings, answers and evaluations: with 100,000 photos and 10,000 classes some 10 MB each.
_TABLES = 8
# Photos in the indexes of ZIPs of thumbnails: 40 MB.
_INDEXED = 100_000
# Lists that other people change meanwhile.
_BRIEF_SECONDS = 5.0
_CLIENT_SECONDS = 900.0
# Side by side, because each waits for S3; few, because each holds a parsed document of some MB.
_READERS = 4
_ADDRESS_SECONDS = 3600
MAX_BYTES = 64 * 2**20


class Absent(LookupError):
    """Something that a page shows is not there; the message says what."""


class Store:
    """Clients and caches of one api-server process; every method may be called from any thread."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lasting: LRUCache[Hashable, Any] = LRUCache(_LASTING)
        self._tables: LRUCache[Hashable, Any] = LRUCache(_TABLES)
        self._indexes: LRUCache[Hashable, Any] = LRUCache(
            _INDEXED, lambda index: min(len(index[1]), _INDEXED)
        )
        self._brief: TTLCache[Hashable, Any] = TTLCache(256, _BRIEF_SECONDS)
        self._clients: TTLCache[str, Any] = TTLCache(16, _CLIENT_SECONDS)
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(_READERS, thread_name_prefix="console")

    def client(self, service: str) -> Client:
        """Return a boto3 client."""
        with self._lock:
            if service not in self._clients:
                self._clients[service] = AwsAccess(self.settings.aws_conn_id).client(service)
            return self._clients[service]

    def lasting(self, key: Hashable, read: Callable[[], Result]) -> Result:
        """Return what `read` gives; it is called once per key while there is room."""
        return self._kept(self._lasting, key, read)

    def table(self, key: Hashable, read: Callable[[], Result]) -> Result:
        """Like `lasting`, for the few that take megabytes."""
        return self._kept(self._tables, key, read)

    def brief(self, key: Hashable, read: Callable[[], Result]) -> Result:
        """Return what `read` gave within the last seconds."""
        return self._kept(self._brief, key, read)

    def index(self, key: Hashable, read: Callable[[], Result]) -> Result:
        """Like `lasting`, for a pair of a tag and a dictionary."""
        return self._kept(self._indexes, key, read)

    def forget(self, key: Hashable) -> None:
        """Drop what `brief` or `index` keeps under a key, because it has changed."""
        with self._lock:
            self._brief.pop(key, None)
            self._indexes.pop(key, None)

    def every(self, read: Callable[[Item], Result], items: Iterable[Item]) -> list[Result | None]:
        """Map `read` over `items` side by side; None for each that is absent."""

        def one(item: Item) -> Result | None:
            try:
                return read(item)
            except Absent:
                return None

        return list(self._pool.map(one, items))

    def bytes_at(self, uri: str, limit: int = MAX_BYTES) -> bytes:
        """Read an object.

        Raises:
            Absent: There is none, or it is larger than `limit`.
        """
        body: bytes = self.stream(uri, limit).read()
        return body

    def stream(self, uri: str, limit: int | None = None) -> Any:
        """Open an object for reading.

        Raises:
            Absent: There is none, or it is larger than `limit`.
        """
        response = self._object(uri)
        if limit is not None and response["ContentLength"] > limit:
            raise Absent(f"{uri} has {response['ContentLength']:,} bytes: too large to show")
        return response["Body"]

    def part(self, uri: str, span: str, tag: str = "") -> tuple[bytes, int, str]:
        """Read a part of an object.

        Args:
            uri: The object.
            span: Of HTTP's Range: "0-99", or "-100" for the last bytes.
            tag: ETag that the object must have.

        Returns:
            The bytes, the size of the object, and its ETag.

        Raises:
            Absent: There is none, it is shorter, or it has another ETag.
        """
        found = self._object(uri, Range=f"bytes={span}", **({"IfMatch": tag} if tag else {}))
        size = found.get("ContentRange", "").rpartition("/")[2] or found["ContentLength"]
        return found["Body"].read(), int(size), found["ETag"]

    def address(self, uri: str) -> str:
        """Return an address under which a browser shows a page, also in a frame: AWS's own pages refuse frames."""
        if self.settings.local:
            return objects.local_address(self.settings, uri)
        bucket, key = objects.split_uri(uri)
        wanted = {"Bucket": bucket, "Key": key, "ResponseContentType": "text/html"}
        address = self.client("s3").generate_presigned_url(
            "get_object", Params=wanted, ExpiresIn=_ADDRESS_SECONDS
        )
        return str(address)

    def size(self, uri: str) -> int | None:
        """Return the bytes of an object; None where it is gone."""
        from botocore.exceptions import ClientError

        bucket, key = objects.split_uri(uri)

        def read() -> int | None:
            try:
                return int(self.client("s3").head_object(Bucket=bucket, Key=key)["ContentLength"])
            except ClientError:
                return None

        return self.lasting(("size", uri), read)

    def _object(self, uri: str, **wanted: str) -> Any:
        from botocore.exceptions import ClientError

        bucket, key = objects.split_uri(uri)
        try:
            return self.client("s3").get_object(Bucket=bucket, Key=key, **wanted)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in (403, 404, 412, 416):
                raise Absent(f"{uri} is gone") from error
            raise

    def json_at(self, uri: str) -> Any:
        """Read a JSON document.

        Raises:
            Absent: There is none, or it is no JSON.
        """
        try:
            return json.loads(self.bytes_at(uri))
        except ValueError as error:
            raise Absent(f"{uri} is damaged") from error

    def folders(self, prefix_uri: str) -> list[str]:
        """List the names of the folders directly under an s3:// prefix that ends with a slash."""
        bucket, prefix = objects.split_uri(prefix_uri)
        pages = self.client("s3").get_paginator("list_objects_v2")
        found = pages.paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
        inside = (item["Prefix"] for page in found for item in page.get("CommonPrefixes", []))
        return [folder[len(prefix) :].rstrip("/") for folder in inside]

    def _kept(self, kept: Any, key: Hashable, read: Callable[[], Result]) -> Result:
        with self._lock:
            if key in kept:
                value: Result = kept[key]
                return value
        value = read()
        with self._lock:
            kept[key] = value
        return value


@cache
def store() -> Store:
    """Return the store of this process."""
    return Store(Settings.load())
