"""Derive the permissions an S3 request needs.

After "Actions, resources, and condition keys for Amazon S3" of the Service Authorization Reference; a request that
reads a whole object needs GetObject whatever its HTTP method.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

from local_aws.iam.conditions import Keys
from local_aws.iam.policy import Access
from local_aws.s3.http import Request

_OBJECT = {
    ("GET", ""): "GetObject",
    ("HEAD", ""): "GetObject",
    ("PUT", ""): "PutObject",
    ("DELETE", ""): "DeleteObject",
    ("GET", "acl"): "GetObjectAcl",
    ("GET", "tagging"): "GetObjectTagging",
    ("PUT", "tagging"): "PutObjectTagging",
    ("DELETE", "tagging"): "DeleteObjectTagging",
    ("GET", "attributes"): "GetObjectAttributes",
    ("POST", "uploads"): "PutObject",
    ("PUT", "uploadId"): "PutObject",
    ("POST", "uploadId"): "PutObject",
    ("DELETE", "uploadId"): "AbortMultipartUpload",
    ("GET", "uploadId"): "ListMultipartUploadParts",
}
_BUCKET = {
    ("GET", ""): "ListBucket",
    ("HEAD", ""): "ListBucket",
    ("PUT", ""): "CreateBucket",
    ("DELETE", ""): "DeleteBucket",
    ("GET", "location"): "GetBucketLocation",
    ("GET", "versions"): "ListBucketVersions",
    ("GET", "uploads"): "ListBucketMultipartUploads",
}
_CONFIGURATION = {
    "versioning": "BucketVersioning",
    "notification": "BucketNotification",
    "policy": "BucketPolicy",
    "encryption": "EncryptionConfiguration",
    "lifecycle": "LifecycleConfiguration",
    "publicAccessBlock": "BucketPublicAccessBlock",
    "ownershipControls": "BucketOwnershipControls",
    "tagging": "BucketTagging",
    "cors": "BucketCORS",
    "acl": "BucketAcl",
    "logging": "BucketLogging",
}
_KEY = re.compile(rb"<Key>(.*?)</Key>", re.DOTALL)


def needs(request: Request, body: bytes) -> Iterator[Access]:
    """Every permission of a request; `body` is that of a DeleteObjects, b"" for all others."""
    if not request.bucket:
        yield Access("s3:ListAllMyBuckets", "*", {})
        return
    bucket = f"arn:aws:s3:::{request.bucket}"
    keys = _keys(request)
    if not request.key:
        if request.method == "POST" and "delete" in request.query:
            for key in _KEY.findall(body):
                yield Access("s3:DeleteObject", f"{bucket}/{_unescaped(key)}", keys)
            return
        yield Access(f"s3:{bucket_action(request)}", bucket, keys)
        return
    resource = f"{bucket}/{request.key}"
    action = _action(_OBJECT, request)
    if request.query.get("versionId") and action in ("GetObject", "DeleteObject"):
        action += "Version"
    yield Access(f"s3:{action}", resource, keys)
    source = request.headers.get("x-amz-copy-source")
    if source:
        place = unquote(source).lstrip("/").partition("?")[0]
        yield Access("s3:GetObject", f"arn:aws:s3:::{place}", {})
    if request.method == "PUT" and request.headers.get("x-amz-tagging"):
        yield Access("s3:PutObjectTagging", resource, keys)


def bucket_action(request: Request) -> str:
    """The action of a request about a bucket."""
    for name, noun in _CONFIGURATION.items():
        if name in request.query:
            return f"{'Get' if request.method in ('GET', 'HEAD') else 'Put'}{noun}"
    return _action(_BUCKET, request)


def _action(table: dict[tuple[str, str], str], request: Request) -> str:
    names = [name for _, name in table if name and name in request.query]
    # S3 itself answers what is not in the table; only the account's root gets that far.
    return table.get((request.method, names[0] if names else ""), "UnknownOperation")


def _keys(request: Request) -> Keys:
    found = {
        # Loopback stands in for TLS: policies that refuse plain HTTP mean the way through a network.
        "aws:securetransport": ("true",),
        "s3:tlsversion": ("1.3",),
    }
    for name in ("prefix", "delimiter", "max-keys"):
        if request.query.get(name):
            found[f"s3:{name}"] = (request.query[name],)
    for name in ("x-amz-server-side-encryption", "x-amz-acl", "x-amz-storage-class"):
        if request.headers.get(name):
            found[f"s3:{name}"] = (request.headers[name],)
    return found


def _unescaped(key: bytes) -> str:
    text = key.decode("utf-8", "replace")
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&apos;", "'"), ("&amp;", "&")):
        text = text.replace(entity, character)
    return text
