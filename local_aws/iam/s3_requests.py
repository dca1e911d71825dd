"""Derive the permissions an S3 request needs.

After "Actions, resources, and condition keys for Amazon S3" of the Service Authorization Reference; a request that
reads a whole object needs GetObject whatever its HTTP method.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from local_aws.iam.conditions import Keys
from local_aws.iam.policy import Access
from local_aws.s3.api.objects import copy_source
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
    ("GET", "policyStatus"): "GetBucketPolicyStatus",
}
UNKNOWN = "UnknownOperation"
"""The action of what S3 itself refuses; only the account's root gets that far."""
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


def needs(request: Request, deletions: Sequence[Mapping[str, str]] = ()) -> Iterator[Access]:
    """Yield every permission of a request; `deletions` are the objects of a DeleteObjects."""
    if not request.bucket:
        yield Access("s3:ListAllMyBuckets", "*", {})
        return
    bucket = f"arn:aws:s3:::{request.bucket}"
    keys = _keys(request)
    if not request.key:
        if request.method == "POST" and request.subresource == "delete":
            for item in deletions:
                action = "s3:DeleteObjectVersion" if item.get("VersionId") else "s3:DeleteObject"
                yield Access(action, f"{bucket}/{item['Key']}", keys)
            return
        yield Access(f"s3:{bucket_action(request)}", bucket, keys)
        return
    resource = f"{bucket}/{request.key}"
    action = _OBJECT.get((request.method, request.subresource), UNKNOWN)
    if request.query.get("versionId") and action in ("GetObject", "DeleteObject"):
        action += "Version"
    yield Access(f"s3:{action}", resource, keys)
    if "x-amz-copy-source" in request.headers:
        source, key, version = copy_source(request)
        read = "s3:GetObjectVersion" if version else "s3:GetObject"
        yield Access(read, f"arn:aws:s3:::{source}/{key}", _keys(request, about_query=False))
    if request.method in ("PUT", "POST") and request.headers.get("x-amz-tagging"):
        yield Access("s3:PutObjectTagging", resource, keys)


def bucket_action(request: Request) -> str:
    """Return the action of a request about a bucket."""
    name = request.subresource
    noun = _CONFIGURATION.get(name)
    if noun is None:
        return _BUCKET.get((request.method, name), UNKNOWN)
    if request.method in ("GET", "HEAD"):
        return f"Get{noun}"
    return f"Delete{noun}" if (request.method, name) == ("DELETE", "policy") else f"Put{noun}"


def _keys(request: Request, about_query: bool = True) -> Keys:
    found = {
        # Loopback stands in for TLS: policies that refuse plain HTTP mean the way through a network.
        "aws:securetransport": ("true",),
        "s3:tlsversion": ("1.3",),
    }
    for name in ("prefix", "delimiter", "max-keys"):
        if about_query and request.query.get(name):
            found[f"s3:{name}"] = (request.query[name],)
    for name in (
        "x-amz-server-side-encryption",
        "x-amz-acl",
        "x-amz-storage-class",
        "if-match",
        "if-none-match",
    ):
        if request.headers.get(name):
            found[f"s3:{name}"] = (request.headers[name],)
    return found
