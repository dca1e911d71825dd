"""Compute AWS's signatures of a request: SigV4, and SigV2 for S3. Pure functions over a WSGI environ.

After "AWS Signature Version 4 for API requests" of the IAM User Guide and "Signing and authenticating REST requests"
of the S3 User Guide (SigV2, which boto3 still uses for presigned URLs).
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import posixpath
import re
from collections.abc import Iterator
from urllib.parse import quote, unquote_to_bytes

from local_aws.gateway.credentials import ALGORITHM, Credential, Place
from local_aws.gateway.responses import Environ

_SPACES = re.compile(r" +")
_SAFE = "-_.~"
_SIGNED_SUBRESOURCES = frozenset(
    (
        "accelerate", "acl", "analytics", "cors", "delete", "inventory", "lifecycle", "location",
        "logging", "metrics", "notification", "object-lock", "partNumber", "policy", "replication",
        "requestPayment", "restore", "response-cache-control", "response-content-disposition",
        "response-content-encoding", "response-content-language", "response-content-type",
        "response-expires", "select", "select-type", "storageClass", "tagging", "torrent", "uploadId",
        "uploads", "versionId", "versioning", "versions", "website",
    )
)  # fmt: skip
"""Query parameters that belong to the resource of SigV2."""


@functools.lru_cache(maxsize=1024)
def signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """Derive the key of a scope (`20260131`, `us-east-1`, `s3`)."""
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def sigv4(secret: str, credential: Credential, environ: Environ, payload: str) -> Iterator[str]:
    """Yield the signatures that a request may carry.

    Args:
        secret: the secret access key.
        credential: the parsed credential scope of the request.
        environ: the WSGI environment of the request.
        payload: the hex SHA-256 of the body, or S3's word for a body that is signed otherwise.

    Yields:
        The signature over the path as it was sent; for S3 then that over the path encoded as AWS does, for clients
        that send another spelling than they sign.
    """
    key = signing_key(secret, credential.date, credential.region, credential.service)
    scope = f"{credential.date}/{credential.region}/{credential.service}/aws4_request"
    raw = raw_path(environ)
    if credential.service in ("s3", "s3express"):
        paths = list(dict.fromkeys([raw, quote(unquote_to_bytes(raw), safe="/" + _SAFE)]))
    else:
        paths = [quote(_normal(raw), safe="/~")]
    query = canonical_query(str(environ.get("QUERY_STRING", "")))
    headers = b"".join(
        name.encode() + b":" + _header(environ, name) + b"\n" for name in sorted(credential.headers)
    )
    names = ";".join(sorted(credential.headers))
    for path in paths:
        request = b"\n".join(
            (
                str(environ["REQUEST_METHOD"]).encode(),
                path.encode("latin-1", "replace"),
                query.encode(),
                headers,
                names.encode(),
                payload.encode("latin-1", "replace"),
            )
        )
        text = f"{ALGORITHM}\n{credential.time}\n{scope}\n{hashlib.sha256(request).hexdigest()}"
        yield hmac.new(key, text.encode("latin-1", "replace"), "sha256").hexdigest()


def sigv2(secret: str, credential: Credential, environ: Environ, bucket: str) -> str:
    """Return the SigV2 signature of an S3 request; `bucket` is "" unless the Host header names it."""
    amz = sorted(
        (name[5:].replace("_", "-").lower(), name) for name in environ if name.startswith("HTTP_X_AMZ_")
    )
    pairs = {name: _header(environ, name).decode("latin-1") for name, _ in amz}
    query = [pair.partition("=") for pair in str(environ.get("QUERY_STRING", "")).split("&") if pair]
    if credential.place is Place.QUERY:
        pairs.update({n.lower(): _text(v) for n, _, v in query if n.lower().startswith("x-amz-")})
    when = credential.time if credential.place is Place.QUERY else ""
    if not when and "x-amz-date" not in pairs:
        when = _header(environ, "date").decode("latin-1")
    chosen = sorted(
        (name, equals, _text(value)) for name, equals, value in query if name in _SIGNED_SUBRESOURCES
    )
    resource = (f"/{bucket}" if bucket else "") + raw_path(environ)
    if chosen:
        resource += "?" + "&".join(f"{name}{equals}{value}" for name, equals, value in chosen)
    text = "\n".join(
        (
            str(environ["REQUEST_METHOD"]),
            _header(environ, "content-md5").decode("latin-1"),
            _header(environ, "content-type").decode("latin-1"),
            when,
            *(f"{name}:{value}" for name, value in sorted(pairs.items())),
            resource,
        )
    )
    return sigv2_of(secret, text.encode("latin-1", "replace"))


def sigv2_of(secret: str, text: bytes) -> str:
    """Return the base64 HMAC-SHA1 of a SigV2 string to sign (or POST policy)."""
    return base64.b64encode(hmac.digest(secret.encode(), text, "sha1")).decode()


def raw_path(environ: Environ) -> str:
    """Return the path as it was sent, still percent-encoded."""
    raw = environ.get("REQUEST_URI") or environ.get("RAW_URI")
    if isinstance(raw, str) and raw.startswith("/"):
        return raw.partition("?")[0]
    return quote(str(environ.get("PATH_INFO", "/")).encode("latin-1"), safe="/" + _SAFE)


def canonical_query(text: str) -> str:
    """Return a query string with its parameters encoded and sorted, without the signature."""
    pairs = []
    for pair in text.split("&"):
        name, _, value = pair.partition("=")
        if name and name != "X-Amz-Signature":
            pairs.append((_encoded(name), _encoded(value)))
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def _encoded(text: str) -> str:
    return quote(unquote_to_bytes(text.encode("latin-1", "replace")), safe=_SAFE)


def _text(value: str) -> str:
    return unquote_to_bytes(value).decode("latin-1")


def _normal(path: str) -> str:
    """Return a path without dot segments and double slashes, as botocore signs it."""
    if not path.strip("/"):
        return "/"
    normal = posixpath.normpath(path)
    normal = "/" + normal.lstrip("/")
    return normal + "/" if path.endswith("/") and normal != "/" else normal


def _header(environ: Environ, name: str) -> bytes:
    key = name.upper().replace("-", "_")
    value = environ.get(key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}", "")
    return _SPACES.sub(" ", str(value).strip()).encode("latin-1", "replace")
