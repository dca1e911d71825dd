"""Operations on buckets: create, head, delete, list their objects and versions, delete many objects."""

from __future__ import annotations

import base64
import functools
import json
import re
from typing import Any

import botocore.session

from local_aws.errors import AwsError
from local_aws.gateway.responses import iso_time
from local_aws.s3 import public_access, xml
from local_aws.s3.api.multipart import OWNER
from local_aws.s3.body import read_document
from local_aws.s3.buckets import Versioning
from local_aws.s3.checksums import Algorithm
from local_aws.s3.conditions import Conditions
from local_aws.s3.errors import S3Error, not_implemented
from local_aws.s3.http import Request, Response, encode_key, encoding_of
from local_aws.s3.listing import Page, Query
from local_aws.s3.objects import Version
from local_aws.s3.store import Deletion, S3Store

MOST_KEYS = 1000
US_EAST_1 = "us-east-1"
_REGION = re.compile(r"[a-z]{2}(?:-[a-z]+)+-[0-9]")


def list_buckets(store: S3Store, request: Request) -> Response:
    """ListBuckets."""
    prefix = request.query.get("prefix", "")
    after = request.query.get("continuation-token", "")
    most = request.integer("max-buckets", 10_000, 1, 10_000)
    region = request.query.get("bucket-region")
    if region is not None and region not in regions():
        text = f"Argument value {region} is not a valid AWS Region"
        raise S3Error("InvalidArgument", text, ArgumentName="bucket-region")
    matching = [
        bucket
        for bucket in store.buckets.all()
        if bucket.name.startswith(prefix) and bucket.name > after and region in (None, bucket.region)
    ]
    shown = matching[:most]
    body = {
        "Owner": OWNER,
        "Buckets": {
            "Bucket": [
                {
                    "Name": bucket.name,
                    "CreationDate": iso_time(bucket.created),
                    "BucketRegion": bucket.region,
                    "BucketArn": f"arn:aws:s3:::{bucket.name}",
                }
                for bucket in shown
            ]
        },
        "Prefix": prefix or None,
        "ContinuationToken": shown[-1].name if len(matching) > most else None,
    }
    return Response.xml(xml.document("ListAllMyBucketsResult", body))


def create_bucket(store: S3Store, request: Request) -> Response:
    """CreateBucket."""
    body = read_document(request)
    parsed = xml.parse(body, "CreateBucketConfiguration") if body.strip() else {}
    constraint = parsed.get("LocationConstraint") or ""
    region = request.region
    if constraint == US_EAST_1:
        raise S3Error("InvalidLocationConstraint", LocationConstraint=constraint)
    if constraint and not _REGION.fullmatch(constraint) and constraint != "EU":
        raise S3Error("InvalidLocationConstraint", LocationConstraint=constraint)
    if region != US_EAST_1 and constraint != region:
        shown = constraint or "unspecified"
        error = S3Error("InvalidArgument")
        error.code = "IllegalLocationConstraintException"
        error.message = (
            f"The {shown} location constraint is incompatible for the region specific endpoint this request "
            "was sent to."
        )
        raise error
    if request.headers.get("x-amz-bucket-object-lock-enabled", "").lower() == "true":
        raise not_implemented("Object Lock")
    store.buckets.create(request.bucket, constraint or region)
    store.buckets.configure(request.bucket, public_access.KIND, public_access.NEW_BUCKET)
    return Response(200, b"", {"Location": f"/{request.bucket}"})


def head_bucket(store: S3Store, request: Request) -> Response:
    """HeadBucket."""
    bucket = store.buckets.get(request.bucket)
    return Response(200, b"", {"x-amz-bucket-region": bucket.region, "x-amz-access-point-alias": "false"})


def delete_bucket(store: S3Store, request: Request) -> Response:
    """DeleteBucket."""
    store.delete_bucket(request.bucket)
    return Response(204)


def get_location(store: S3Store, request: Request) -> Response:
    """GetBucketLocation; empty for us-east-1."""
    region = store.buckets.get(request.bucket).region
    text = "" if region == US_EAST_1 else region
    body = f'{xml.HEADER}<LocationConstraint xmlns="{xml.NAMESPACE}">{text}</LocationConstraint>'
    return Response.xml(body.encode())


def get_versioning(store: S3Store, request: Request) -> Response:
    """GetBucketVersioning."""
    status = store.buckets.get(request.bucket).versioning.value
    return Response.xml(xml.document("VersioningConfiguration", {"Status": status or None}))


def put_versioning(store: S3Store, request: Request) -> Response:
    """PutBucketVersioning."""
    parsed = xml.parse(read_document(request), "VersioningConfiguration")
    if parsed.get("MfaDelete", "Disabled") != "Disabled":
        raise not_implemented("MFA delete")
    status = parsed.get("Status")
    if status is None:
        text = "The Versioning element must be specified"
        raise S3Error("IllegalVersioningConfigurationException", text)
    if status not in (Versioning.ENABLED.value, Versioning.SUSPENDED.value):
        raise S3Error("MalformedXML")
    store.buckets.set_versioning(request.bucket, Versioning(status))
    return Response(200)


def list_objects(store: S3Store, request: Request) -> Response:
    """ListObjects (version 1)."""
    marker = request.query.get("marker", "")
    query = _query(request, (marker, 0) if marker else None)
    page = store.list_page(query)
    encoding = encoding_of(request)
    body = {
        "Name": request.bucket,
        "Prefix": encode_key(query.prefix, encoding),
        "Marker": encode_key(marker, encoding),
        "MaxKeys": query.limit,
        "Delimiter": encode_key(query.delimiter, encoding) or None,
        "EncodingType": encoding,
        "IsTruncated": page.next_after is not None,
        "NextMarker": encode_key(page.next_after[0], encoding)
        if page.next_after and query.delimiter
        else None,
        **_contents(page, encoding, owner=True),
    }
    return Response.xml(xml.document("ListBucketResult", body))


def list_objects_v2(store: S3Store, request: Request) -> Response:
    """ListObjectsV2."""
    token, start = request.query.get("continuation-token"), request.query.get("start-after", "")
    after = _read_token(token) if token is not None else ((start, 0) if start else None)
    query = _query(request, after)
    page = store.list_page(query)
    encoding = encoding_of(request)
    body = {
        "Name": request.bucket,
        "Prefix": encode_key(query.prefix, encoding),
        "StartAfter": encode_key(start, encoding) or None,
        "ContinuationToken": token,
        "NextContinuationToken": _make_token(page.next_after) if page.next_after else None,
        "KeyCount": len(page.versions) + len(page.prefixes),
        "MaxKeys": query.limit,
        "Delimiter": encode_key(query.delimiter, encoding) or None,
        "EncodingType": encoding,
        "IsTruncated": page.next_after is not None,
        **_contents(page, encoding, owner=request.query.get("fetch-owner") == "true"),
    }
    return Response.xml(xml.document("ListBucketResult", body))


def list_versions(store: S3Store, request: Request) -> Response:
    """ListObjectVersions."""
    key_marker, id_marker = request.query.get("key-marker", ""), request.query.get("version-id-marker", "")
    if id_marker and not key_marker:
        text = "A version-id marker cannot be specified without a key marker."
        raise S3Error("InvalidArgument", text, ArgumentName="version-id-marker", ArgumentValue=id_marker)
    after: tuple[str, int] | None = (key_marker, 0) if key_marker else None
    if key_marker and id_marker:
        after = (key_marker, store.version(request.bucket, key_marker, id_marker).sequence)
    query = _query(request, after, all_versions=True)
    page = store.list_page(query)
    encoding = encoding_of(request)
    last = page.versions[-1] if page.versions else None
    more = page.next_after is not None
    body = {
        "Name": request.bucket,
        "Prefix": encode_key(query.prefix, encoding),
        "KeyMarker": encode_key(key_marker, encoding),
        "VersionIdMarker": id_marker,
        "NextKeyMarker": encode_key(page.next_after[0], encoding) if page.next_after else None,
        "NextVersionIdMarker": last.version
        if more and last and page.next_after == (last.key, last.sequence)
        else None,
        "MaxKeys": query.limit,
        "Delimiter": encode_key(query.delimiter, encoding) or None,
        "EncodingType": encoding,
        "IsTruncated": more,
        "Version": [_version_element(v, encoding) for v in page.versions if not v.attributes.marker],
        "DeleteMarker": [_marker_element(v, encoding) for v in page.versions if v.attributes.marker],
        "CommonPrefixes": [{"Prefix": encode_key(prefix, encoding)} for prefix in page.prefixes],
    }
    return Response.xml(xml.document("ListVersionsResult", body))


def delete_objects(store: S3Store, request: Request) -> Response:
    """DeleteObjects."""
    parsed = parse_deletions(read_document(request))
    wanted = parsed["Object"]
    deletions = [
        Deletion(item["Key"], item.get("VersionId") or None, Conditions(match=item.get("ETag")))
        for item in wanted
    ]
    deleted: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    for deletion, done in zip(deletions, store.delete_all(request.bucket, deletions), strict=True):
        entry: dict[str, Any] = {"Key": deletion.key, "VersionId": deletion.version_id}
        if isinstance(done, AwsError):
            errors.append(entry | {"Code": done.code, "Message": done.message})
            continue
        if done.version is not None and done.version.attributes.marker:
            entry |= {"DeleteMarker": True, "DeleteMarkerVersionId": done.version.version}
        deleted.append(entry)
    quiet = parsed.get("Quiet") == "true"
    body = {"Deleted": [] if quiet else deleted, "Error": errors}
    return Response.xml(xml.document("DeleteResult", body))


def parse_deletions(body: bytes) -> dict[str, Any]:
    """Parse a DeleteObjects document; the IAM gate judges by the same function.

    Raises:
        S3Error: MalformedXML.
    """
    parsed = xml.parse(body, "Delete", frozenset({"Object"}))
    wanted = parsed.get("Object", [])
    if not wanted or len(wanted) > MOST_KEYS:
        raise S3Error("MalformedXML")
    for item in wanted:
        if not isinstance(item, dict) or not all(isinstance(value, str) for value in item.values()):
            raise S3Error("MalformedXML")
        if not item.get("Key"):
            raise S3Error("MalformedXML")
    return parsed


def _query(request: Request, after: tuple[str, int] | None, all_versions: bool = False) -> Query:
    limit = min(request.integer("max-keys", MOST_KEYS), MOST_KEYS)
    prefix, delimiter = request.query.get("prefix", ""), request.query.get("delimiter", "")
    return Query(request.bucket, prefix, delimiter, after, limit, all_versions)


@functools.cache
def regions() -> frozenset[str]:
    """Return the names of AWS's regions."""
    session = botocore.session.get_session()
    return frozenset(
        name for partition in session.get_available_partitions()
        for name in session.get_available_regions("s3", partition)
    )  # fmt: skip


def _contents(page: Page, encoding: str | None, owner: bool) -> dict[str, Any]:
    return {
        "Contents": [
            {
                "Key": encode_key(version.key, encoding),
                "LastModified": iso_time(version.modified),
                "ETag": version.quoted_etag,
                "ChecksumAlgorithm": [Algorithm(name).name for name in version.attributes.checksums],
                "ChecksumType": version.attributes.checksum_type if version.attributes.checksums else None,
                "Size": version.size,
                "StorageClass": version.attributes.headers.get("x-amz-storage-class", "STANDARD"),
                "Owner": OWNER if owner else None,
            }
            for version in page.versions
        ],
        "CommonPrefixes": [{"Prefix": encode_key(prefix, encoding)} for prefix in page.prefixes],
    }


def _version_element(version: Version, encoding: str | None) -> dict[str, Any]:
    return {
        "ETag": version.quoted_etag,
        "Size": version.size,
        "StorageClass": version.attributes.headers.get("x-amz-storage-class", "STANDARD"),
        **_marker_element(version, encoding),
    }


def _marker_element(version: Version, encoding: str | None) -> dict[str, Any]:
    return {
        "Key": encode_key(version.key, encoding),
        "VersionId": version.version,
        "IsLatest": version.latest,
        "LastModified": iso_time(version.modified),
        "Owner": OWNER,
    }


def _make_token(after: tuple[str, int]) -> str:
    return base64.urlsafe_b64encode(json.dumps(after).encode()).decode()


def _read_token(token: str) -> tuple[str, int]:
    try:
        key, sequence = json.loads(base64.urlsafe_b64decode(token.encode()))
        return str(key), int(sequence)
    except (ValueError, TypeError):
        text = "The continuation token provided is incorrect"
        raise S3Error("InvalidArgument", text, ArgumentName="continuation-token") from None
