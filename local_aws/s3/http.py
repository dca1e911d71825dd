"""Requests and responses of S3's REST protocol, independent of their meaning."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, unquote

from local_aws.gateway.responses import Environ
from local_aws.s3.errors import S3Error

_VIRTUAL_HOST = re.compile(
    r"^(?P<bucket>[a-z0-9][a-z0-9.-]*?)\.(?:s3[.-](?:[a-z0-9-]+\.)*)?(?:localhost|amazonaws\.com)(?::\d+)?$"
)
_BUCKET_SUBRESOURCES = frozenset(
    [
        "accelerate",
        "acl",
        "analytics",
        "cors",
        "delete",
        "encryption",
        "intelligent-tiering",
        "inventory",
        "lifecycle",
        "location",
        "logging",
        "metadataConfiguration",
        "metadataTable",
        "metrics",
        "notification",
        "object-lock",
        "ownershipControls",
        "policy",
        "policyStatus",
        "publicAccessBlock",
        "replication",
        "requestPayment",
        "session",
        "tagging",
        "uploads",
        "versioning",
        "versions",
        "website",
        "abac",
    ]
)
_OBJECT_SUBRESOURCES = frozenset(
    [
        "acl",
        "attributes",
        "legal-hold",
        "renameObject",
        "restore",
        "retention",
        "select",
        "tagging",
        "torrent",
        "uploadId",
        "uploads",
    ]
)
_SERVICE_HOST = re.compile(r"^s3[.-]")
_SEND = 256 * 1024


class ChunkSigner:
    """The chain of signatures over the chunks of an aws-chunked body."""

    def __init__(self, key: bytes, time: str, scope: str, seed: str) -> None:
        self._key, self._head, self._previous = key, f"{time}\n{scope}", seed

    def check(self, digest: str, signature: str) -> None:
        """Verify the next chunk by its hex SHA-256. Raises SignatureDoesNotMatch."""
        self._check("AWS4-HMAC-SHA256-PAYLOAD", f"{_NOTHING}\n{digest}", signature)

    def check_trailer(self, trailer: bytes, signature: str) -> None:
        """Verify the trailing headers. Raises SignatureDoesNotMatch."""
        self._check("AWS4-HMAC-SHA256-TRAILER", hashlib.sha256(trailer).hexdigest(), signature)

    def _check(self, algorithm: str, digests: str, signature: str) -> None:
        text = f"{algorithm}\n{self._head}\n{self._previous}\n{digests}"
        wanted = hmac.new(self._key, text.encode("latin-1", "replace"), "sha256").hexdigest()
        if not hmac.compare_digest(wanted.encode(), signature.encode("utf-8", "replace")):
            raise S3Error("SignatureDoesNotMatch")
        self._previous = wanted


_NOTHING = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True)
class Request:
    """One request.

    `headers` are by lower-case name, `query` keeps the first value of each name, `key` is "" on a bucket. `document`
    is the decoded body where the IAM gate has read it.
    """

    method: str
    bucket: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    input: BinaryIO
    region: str = "us-east-1"
    url: str = ""
    chunk_signer: ChunkSigner | None = None
    document: bytes | None = None

    @classmethod
    def from_environ(cls, environ: Environ) -> Request:
        """Read a WSGI environ, path style or virtual-host style."""
        headers = {
            name[5:].replace("_", "-").lower(): value
            for name, value in environ.items()
            if name[:5] == "HTTP_"
        }
        for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            if environ.get(name):
                headers[name.replace("_", "-").lower()] = environ[name]
        path, query = _target(environ)
        bucket, key = _address(path, headers.get("host", ""), environ.get("local_aws.hosts", ()))
        return cls(
            environ["REQUEST_METHOD"],
            bucket,
            key,
            query,
            headers,
            environ["wsgi.input"],
            environ.get("local_aws.region", "us-east-1"),
            f"{environ.get('wsgi.url_scheme', 'http')}://{headers.get('host', 'localhost')}",
            environ.get("local_aws.chunk_signer"),
            environ.get("local_aws.document"),
        )

    @property
    def subresource(self) -> str:
        """The first query parameter that selects an operation, such as `tagging`; "" for none."""
        known = _OBJECT_SUBRESOURCES if self.key else _BUCKET_SUBRESOURCES
        return next((name for name in self.query if name in known), "")

    @property
    def content_length(self) -> int | None:
        """The length of the body on the wire, None when it is sent in chunks or not at all."""
        text = self.headers.get("content-length")
        if text is None:
            return None
        if not (text.isascii() and text.isdigit()):
            raise S3Error("InvalidArgument", "Content-Length is not a number")
        return int(text)

    def integer(self, name: str, default: int, least: int = 0, most: int = 2**31 - 1) -> int:
        """Return a query parameter. Raises InvalidArgument."""
        text = self.query.get(name)
        if text is None or text == "":
            return default
        if not (text.isascii() and text.isdigit()) or not least <= int(text[:20]) <= most:
            raise S3Error(
                "InvalidArgument",
                f"Argument {name} must be an integer between {least} and {most}",
                ArgumentName=name,
                ArgumentValue=text,
            )
        return int(text)


@dataclass
class Response:
    """An answer. `body` is bytes, or chunks of known total length (`headers` hold Content-Length then)."""

    status: int = 200
    body: bytes | Iterable[bytes] = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def xml(cls, body: bytes, headers: Mapping[str, str] | None = None, status: int = 200) -> Response:
        """Return an XML document."""
        return cls(status, body, {"Content-Type": "application/xml", **(headers or {})})


class FileRange:
    """Bytes [start, end) of an open file as response chunks; closes the file."""

    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        self._file, self._start, self._end = file, start, end

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(self._start)
        left = self._end - self._start
        while left > 0:
            chunk = self._file.read(min(_SEND, left))
            if not chunk:
                raise OSError("blob is shorter than its index entry")
            left -= len(chunk)
            yield chunk

    def close(self) -> None:
        """WSGI calls this, also when the client went away."""
        self._file.close()


def _target(environ: Environ) -> tuple[str, dict[str, str]]:
    """Return the path, decoded once, and the query.

    Servers decode paths in different ways, so this starts from the raw one.
    """
    raw = environ.get("REQUEST_URI") or environ.get("RAW_URI")
    if isinstance(raw, str) and raw.startswith("/"):
        path = unquote(raw.partition("?")[0], errors="surrogateescape")
    else:
        path = environ.get("PATH_INFO", "/").encode("latin-1").decode("utf-8", "surrogateescape")
    try:
        path.encode()
    except UnicodeEncodeError:
        raise S3Error("InvalidArgument", "The key is not valid UTF-8") from None
    query: dict[str, str] = {}
    for name, value in parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True):
        query.setdefault(name, value)
    return path, query


def bucket_of_host(host: str, names: Collection[str] = ()) -> str:
    """Return the bucket that a Host header names, "" in path-style requests.

    Args:
        host: value of the Host header, with or without a port.
        names: further host names of local_aws, under which buckets are subdomains too.
    """
    host = host.lower()
    if _SERVICE_HOST.match(host):
        return ""
    match = _VIRTUAL_HOST.match(host)
    if match is not None:
        return match.group("bucket")
    plain = host.partition(":")[0]
    return next((plain.removesuffix(f".{name}") for name in names if plain.endswith(f".{name}")), "")


def _address(path: str, host: str, names: Collection[str]) -> tuple[str, str]:
    bucket = bucket_of_host(host, names)
    if bucket:
        return bucket, path[1:]
    bucket, _, key = path[1:].partition("/")
    return bucket, key


def encode_key(key: str, encoding: Any) -> str:
    """Return a key as lists show it under `encoding-type=url`."""
    from urllib.parse import quote

    return quote(key, safe="/*-._") if encoding == "url" else key


def encoding_of(request: Request) -> str | None:
    """Return the `encoding-type` of a list request. Raises InvalidArgument."""
    encoding = request.query.get("encoding-type")
    if encoding not in (None, "url"):
        text = "Invalid Encoding Method specified in Request"
        raise S3Error("InvalidArgument", text, ArgumentName="encoding-type", ArgumentValue=encoding)
    return encoding
