"""Bucket configurations: what is kept and returned, and with what effect.

- tagging, cors: kept and returned; browsers' preflight requests are not answered.
- encryption: kept and returned; bytes on disk are not encrypted, answers say AES256 unless a request asks for KMS.
- lifecycle: kept and returned; nothing expires.
- publicAccessBlock: BlockPublicPolicy refuses public policies; RestrictPublicBuckets acts with `--iam enforce`.
- policy, ownershipControls: kept, checked for form, returned; policies act with `--iam enforce`.
- notification: acts, events go to SQS (notifications.py); other targets are refused.

Everything else answers NotImplemented.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from local_aws.s3 import xml
from local_aws.s3.api.multipart import OWNER
from local_aws.s3.api.objects import check_acl, parse_tags, tag_document
from local_aws.s3.body import read_document
from local_aws.s3.errors import S3Error
from local_aws.s3.http import Request, Response
from local_aws.s3.public_access import KIND, ROOT, is_blocked, is_public
from local_aws.s3.store import S3Store

MOST_BUCKET_TAGS = 50
LARGEST_POLICY = 20 * 1024

Handler = Callable[[S3Store, Request], Response]


@dataclass(frozen=True)
class Document:
    """A sub-resource kept as the XML that the client sent.

    `root` is its root element, `missing` the error when there is none. `required` elements must be there.
    `default` is answered where nothing was put.
    """

    kind: str
    root: str
    missing: str
    required: tuple[str, ...] = ()
    default: Mapping[str, Any] | None = None


DOCUMENTS = (
    Document(
        "encryption",
        "ServerSideEncryptionConfiguration",
        "ServerSideEncryptionConfigurationNotFoundError",
        ("Rule",),
        default={
            "Rule": {
                "ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"},
                "BucketKeyEnabled": False,
            }
        },
    ),
    Document("lifecycle", "LifecycleConfiguration", "NoSuchLifecycleConfiguration", ("Rule",)),
    Document("cors", "CORSConfiguration", "NoSuchCORSConfiguration", ("CORSRule",)),
    Document(KIND, ROOT, "NoSuchPublicAccessBlockConfiguration"),
    Document("ownershipControls", "OwnershipControls", "OwnershipControlsNotFoundError", ("Rule",)),
)


def handlers() -> dict[tuple[str, str], Handler]:
    """(method, sub-resource) -> handler."""
    table: dict[tuple[str, str], Handler] = {
        ("GET", "policy"): get_policy,
        ("PUT", "policy"): put_policy,
        ("DELETE", "policy"): _remover("policy"),
        ("GET", "policyStatus"): get_policy_status,
        ("GET", "tagging"): get_tags,
        ("PUT", "tagging"): put_tags,
        ("DELETE", "tagging"): _remover("tagging"),
        ("GET", "acl"): get_acl,
        ("PUT", "acl"): put_acl,
    }
    for document in DOCUMENTS:
        table["GET", document.kind] = _getter(document)
        table["PUT", document.kind] = _putter(document)
        table["DELETE", document.kind] = _remover(document.kind)
    return table


def get_policy(store: S3Store, request: Request) -> Response:
    """GetBucketPolicy."""
    policy = store.buckets.configuration(request.bucket, "policy")
    if policy is None:
        raise S3Error("NoSuchBucketPolicy", BucketName=request.bucket)
    return Response(200, policy.encode(), {"Content-Type": "application/json"})


def put_policy(store: S3Store, request: Request) -> Response:
    """PutBucketPolicy."""
    body = read_document(request)
    if len(body) > LARGEST_POLICY:
        raise S3Error("MalformedPolicy", "Policy exceeds the maximum allowed document size.")
    try:
        parsed = json.loads(body)
    except ValueError:
        raise S3Error(
            "MalformedPolicy", "Policies must be valid JSON and the first byte must be '{'"
        ) from None
    if not isinstance(parsed, dict) or not parsed.get("Statement"):
        raise S3Error("MalformedPolicy", "Missing required field Statement")
    if is_public(parsed) and is_blocked(store, request.bucket, "BlockPublicPolicy"):
        raise S3Error(
            "AccessDenied",
            "Public policies are prevented by the BlockPublicPolicy setting in S3 Block Public Access.",
        )
    store.buckets.configure(request.bucket, "policy", body.decode())
    return Response(204)


def get_policy_status(store: S3Store, request: Request) -> Response:
    """GetBucketPolicyStatus."""
    policy = store.buckets.configuration(request.bucket, "policy")
    if policy is None:
        raise S3Error("NoSuchBucketPolicy", BucketName=request.bucket)
    return Response.xml(xml.document("PolicyStatus", {"IsPublic": is_public(json.loads(policy))}))


def get_tags(store: S3Store, request: Request) -> Response:
    """GetBucketTagging."""
    tags = store.buckets.configuration(request.bucket, "tagging")
    if not tags:
        raise S3Error("NoSuchTagSet", BucketName=request.bucket)
    return Response.xml(tag_document(tags))


def put_tags(store: S3Store, request: Request) -> Response:
    """PutBucketTagging."""
    tags = parse_tags(read_document(request), MOST_BUCKET_TAGS)
    store.buckets.configure(request.bucket, "tagging", tags)
    return Response(204)


def get_acl(store: S3Store, request: Request) -> Response:
    """GetBucketAcl and GetObjectAcl: the owner has full control, as with ACLs disabled (S3's default)."""
    if request.key:
        store.head(request.bucket, request.key, request.query.get("versionId"))
    else:
        store.buckets.get(request.bucket)
    grantee = (
        '<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="CanonicalUser">'
        f"<ID>{OWNER['ID']}</ID><DisplayName>{OWNER['DisplayName']}</DisplayName></Grantee>"
    )
    body = (
        f'{xml.HEADER}<AccessControlPolicy xmlns="{xml.NAMESPACE}"><Owner><ID>{OWNER["ID"]}</ID>'
        f"<DisplayName>{OWNER['DisplayName']}</DisplayName></Owner><AccessControlList><Grant>{grantee}"
        "<Permission>FULL_CONTROL</Permission></Grant></AccessControlList></AccessControlPolicy>"
    )
    return Response.xml(body.encode())


def put_acl(store: S3Store, request: Request) -> Response:
    """PutBucketAcl and PutObjectAcl: only the owner's full control, as with ACLs disabled."""
    store.buckets.get(request.bucket)
    if request.key:
        store.head(request.bucket, request.key, request.query.get("versionId"))
    document = read_document(request)
    if document.strip() or "x-amz-acl" not in request.headers:
        raise S3Error("AccessControlListNotSupported")
    check_acl(request)
    return Response(200)


def _getter(document: Document) -> Handler:
    def get(store: S3Store, request: Request) -> Response:
        text = store.buckets.configuration(request.bucket, document.kind)
        if text is not None:
            return Response.xml(text.encode())
        if document.default is None:
            raise S3Error(document.missing, BucketName=request.bucket)
        return Response.xml(xml.document(document.root, document.default))

    return get


def _putter(document: Document) -> Handler:
    repeated = frozenset(
        {"Rule", "CORSRule", "AllowedMethod", "AllowedOrigin", "AllowedHeader", "ExposeHeader"}
    )
    any_list = repeated | {"Transition", "NoncurrentVersionTransition", "Tag", "ID"}

    def put(store: S3Store, request: Request) -> Response:
        body = read_document(request)
        parsed = xml.parse(body, document.root, any_list)
        if any(name not in parsed for name in document.required):
            raise S3Error("MalformedXML")
        store.buckets.configure(request.bucket, document.kind, body.decode())
        return Response(200)

    return put


def _remover(kind: str) -> Handler:
    def remove(store: S3Store, request: Request) -> Response:
        store.buckets.configure(request.bucket, kind, None)
        return Response(204)

    return remove
