"""Operations on objects: get, head, put, copy, delete, tags, attributes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, unquote

from local_aws.gateway.responses import iso_time
from local_aws.s3 import xml
from local_aws.s3.blobs import Blob
from local_aws.s3.body import read_document, receive
from local_aws.s3.checksums import Algorithm, algorithm_named
from local_aws.s3.conditions import Conditions, parse_range
from local_aws.s3.errors import S3Error, not_implemented
from local_aws.s3.http import FileRange, Request, Response
from local_aws.s3.objects import (
    ARCHIVED,
    STORAGE_CLASSES,
    Attributes,
    Version,
    check_key,
    check_metadata,
    check_tags,
)
from local_aws.s3.store import DEFAULT_CONTENT_TYPE, Draft, S3Store

STORED_HEADERS = (
    "content-type",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "expires",
    "x-amz-website-redirect-location",
    "x-amz-storage-class",
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
)
_OVERRIDES = (
    "content-type",
    "content-language",
    "expires",
    "cache-control",
    "content-disposition",
    "content-encoding",
)
_REFUSED_HEADERS = {
    "x-amz-server-side-encryption-customer-algorithm": "Encryption with customer-provided keys (SSE-C)",
    "x-amz-object-lock-mode": "Object Lock",
    "x-amz-object-lock-legal-hold": "Object Lock",
    "x-amz-write-offset-bytes": "Appending to objects",
}
_META = "x-amz-meta-"
OWNERS_ACLS = ("private", "bucket-owner-full-control")
LARGEST_COPY = 5 * 1024**3


def get_object(store: S3Store, request: Request) -> Response:
    """GetObject."""
    version, file = store.open(request.bucket, request.key, request.query.get("versionId"))
    try:
        Conditions.from_headers(request.headers).check_read(version)
        if version.attributes.headers.get("x-amz-storage-class") in ARCHIVED:
            archived = version.attributes.headers["x-amz-storage-class"]
            raise S3Error("InvalidObjectState", StorageClass=archived)
        part = _part_range(request, version)
        span = part or parse_range(request.headers.get("range"), version.size)
        headers = _headers(version, request)
        start, end = span or (0, version.size)
        headers["Content-Length"] = str(end - start)
        if span is not None:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{version.size}"
            if part is None:
                # Checksums are of the whole object; S3 sends them with a range only for whole parts.
                _drop_checksums(headers)
    except BaseException:
        file.close()
        raise
    return Response(200 if span is None else 206, FileRange(file, start, end), headers)


def head_object(store: S3Store, request: Request) -> Response:
    """HeadObject."""
    version = store.head(request.bucket, request.key, request.query.get("versionId"))
    Conditions.from_headers(request.headers).check_read(version)
    span = _part_range(request, version) or parse_range(request.headers.get("range"), version.size)
    headers = _headers(version, request)
    start, end = span or (0, version.size)
    headers["Content-Length"] = str(end - start)
    if span is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{version.size}"
    return Response(200 if span is None else 206, b"", headers)


def put_object(store: S3Store, request: Request) -> Response:
    """PutObject, and CopyObject where the request names a source."""
    if "x-amz-copy-source" in request.headers:
        return copy_object(store, request)
    check_key(request.key)
    attributes = attributes_from(request)
    conditions = Conditions.from_headers(request.headers)
    store.buckets.get(request.bucket)
    with store.blobs.writing() as blob:
        digests = receive(request, blob)
        draft = Draft(
            request.bucket, request.key, blob, digests.md5_hex, attributes.with_checksums(digests.values)
        )
        version = store.put(draft, conditions)
    headers = {"ETag": version.quoted_etag, **_written_headers(version)}
    headers.update({algorithm.header: value for algorithm, value in digests.values.items()})
    return Response(200, b"", headers)


def copy_object(store: S3Store, request: Request) -> Response:
    """CopyObject: the new object shares its bytes with the old one on disk."""
    check_key(request.key)
    bucket, key, version_id = copy_source(request)
    source, blob = store.link(bucket, key, version_id)
    try:
        version = _store_copy(store, request, source, blob)
    except BaseException:
        blob.discard()
        raise
    body = {
        "LastModified": iso_time(version.modified),
        "ETag": version.quoted_etag,
        **checksum_elements(version),
    }
    headers = _written_headers(version)
    if source.version != "null":
        headers["x-amz-copy-source-version-id"] = source.version
    return Response.xml(xml.document("CopyObjectResult", body), headers)


def _store_copy(store: S3Store, request: Request, source: Version, blob: Blob) -> Version:
    Conditions.from_headers(request.headers, "x-amz-copy-source-").check_read(source, copying=True)
    if source.size > LARGEST_COPY:
        raise S3Error(
            "InvalidRequest",
            "The specified copy source is larger than the maximum allowable size for a copy source: "
            f"{LARGEST_COPY}",
        )
    draft = Draft(request.bucket, request.key, blob, source.etag, _copied_attributes(request, source))
    return store.put(draft, Conditions.from_headers(request.headers), event="Copy")


def delete_object(store: S3Store, request: Request) -> Response:
    """DeleteObject."""
    conditions = Conditions.from_headers(request.headers)
    done = store.delete(request.bucket, request.key, request.query.get("versionId"), conditions)
    headers = {}
    if done.version is not None and (done.version.version != "null" or not done.removed):
        headers["x-amz-version-id"] = done.version.version
    if done.version is not None and done.version.attributes.marker:
        headers["x-amz-delete-marker"] = "true"
    return Response(204, b"", headers)


def get_tags(store: S3Store, request: Request) -> Response:
    """GetObjectTagging."""
    version = store.head(request.bucket, request.key, request.query.get("versionId"))
    return Response.xml(tag_document(version.attributes.tags), _version_header(version))


def put_tags(store: S3Store, request: Request) -> Response:
    """PutObjectTagging."""
    version = store.head(request.bucket, request.key, request.query.get("versionId"))
    store.set_tags(version, parse_tags(read_document(request)))
    return Response(200, b"", _version_header(version))


def delete_tags(store: S3Store, request: Request) -> Response:
    """DeleteObjectTagging."""
    version = store.head(request.bucket, request.key, request.query.get("versionId"))
    store.set_tags(version, {})
    return Response(204, b"", _version_header(version))


def get_attributes(store: S3Store, request: Request) -> Response:
    """GetObjectAttributes."""
    wanted = [name.strip() for name in request.headers.get("x-amz-object-attributes", "").split(",")]
    version = store.head(request.bucket, request.key, request.query.get("versionId"))
    parts = version.attributes.parts
    available: dict[str, Any] = {
        "ETag": version.etag,
        "Checksum": {**checksum_elements(version), "ChecksumType": version.attributes.checksum_type},
        "ObjectParts": {"TotalPartsCount": len(parts)} if parts else None,
        "StorageClass": version.attributes.headers.get("x-amz-storage-class", "STANDARD"),
        "ObjectSize": version.size,
    }
    unknown = [name for name in wanted if name not in available]
    if unknown:
        raise S3Error("InvalidArgument", "Invalid attribute name specified.", ArgumentValue=unknown[0])
    chosen = {name: value for name, value in available.items() if name in wanted}
    headers = {"Last-Modified": xml.http_time(version.modified), **_version_header(version)}
    return Response.xml(xml.document("GetObjectAttributesResponse", chosen), headers)


def attributes_from(request: Request) -> Attributes:
    """Return the attributes that a PutObject or CreateMultipartUpload request states.

    Raises:
        S3Error: NotImplemented for features that local_aws lacks, InvalidStorageClass.
    """
    for header, feature in _REFUSED_HEADERS.items():
        if header in request.headers:
            raise not_implemented(feature)
    headers = {name: request.headers[name] for name in STORED_HEADERS if name in request.headers}
    headers.setdefault("content-type", DEFAULT_CONTENT_TYPE)
    storage = headers.get("x-amz-storage-class", "STANDARD")
    if storage not in STORAGE_CLASSES:
        raise S3Error("InvalidStorageClass", StorageClassRequested=storage)
    check_acl(request)
    encodings = [part.strip() for part in headers.pop("content-encoding", "").split(",")]
    kept = ",".join(part for part in encodings if part and part != "aws-chunked")
    if kept:
        headers["content-encoding"] = kept
    if headers.get("x-amz-storage-class") == "STANDARD":
        del headers["x-amz-storage-class"]
    metadata = {
        name[len(_META) :]: _utf8(value) for name, value in request.headers.items() if name.startswith(_META)
    }
    check_metadata(metadata)
    return Attributes(headers=headers, metadata=metadata, tags=_header_tags(request))


def check_acl(request: Request) -> None:
    """Refuse ACLs other than the owner's, as buckets do by default (BucketOwnerEnforced)."""
    grants = any(name.startswith("x-amz-grant-") for name in request.headers)
    if grants or request.headers.get("x-amz-acl", OWNERS_ACLS[0]) not in OWNERS_ACLS:
        raise S3Error("AccessControlListNotSupported")


def copy_source(request: Request) -> tuple[str, str, str | None]:
    """Bucket, key and version id of x-amz-copy-source. Raises InvalidArgument."""
    path, _, query = request.headers["x-amz-copy-source"].partition("?")
    bucket, _, key = unquote(path).lstrip("/").partition("/")
    if not bucket or not key:
        raise S3Error(
            "InvalidArgument", "Copy Source must mention the source bucket and key: sourcebucket/sourcekey"
        )
    return bucket, key, dict(parse_qsl(query)).get("versionId")


def checksum_elements(version: Version) -> dict[str, str]:
    """`{"ChecksumCRC32": "..."}`."""
    return {Algorithm(name).element: value for name, value in version.attributes.checksums.items()}


def tag_document(tags: Any) -> bytes:
    """`<Tagging>` of a mapping."""
    return xml.document(
        "Tagging", {"TagSet": {"Tag": [{"Key": key, "Value": value} for key, value in tags.items()]}}
    )


def parse_tags(body: bytes, most: int = 10) -> dict[str, str]:
    """Return the inverse of `tag_document`. Raises MalformedXML, InvalidTag."""
    parsed = xml.parse(body, "Tagging", frozenset({"Tag"})).get("TagSet") or {}
    tags: dict[str, str] = {}
    for tag in parsed.get("Tag", []) if isinstance(parsed, dict) else []:
        if not isinstance(tag, dict) or "Key" not in tag:
            raise S3Error("MalformedXML")
        if tag["Key"] in tags:
            raise S3Error("InvalidTag", "Cannot provide multiple Tags with the same key", TagKey=tag["Key"])
        tags[tag["Key"]] = tag.get("Value", "")
    check_tags(tags, most)
    return tags


def _header_tags(request: Request) -> dict[str, str]:
    text = request.headers.get("x-amz-tagging")
    tags = dict(parse_qsl(text, keep_blank_values=True)) if text else {}
    check_tags(tags)
    return tags


def _copied_attributes(request: Request, source: Version) -> Attributes:
    chosen = attributes_from(request)
    replaces = request.headers.get("x-amz-metadata-directive", "COPY").upper() == "REPLACE"
    in_place = (source.bucket, source.key) == (request.bucket, request.key)
    changed = replaces or chosen.headers.keys() & {"x-amz-storage-class", "x-amz-server-side-encryption"}
    if in_place and not changed and "versionId" not in request.headers["x-amz-copy-source"]:
        raise S3Error(
            "InvalidRequest",
            "This copy request is illegal because it is trying to copy an object to itself without changing "
            "the object's metadata, storage class, website redirect location or encryption attributes.",
        )
    result = source.attributes
    if replaces:
        result = replace(result, headers=chosen.headers, metadata=chosen.metadata)
    if request.headers.get("x-amz-tagging-directive", "COPY").upper() == "REPLACE":
        result = replace(result, tags=chosen.tags)
    wanted = request.headers.get("x-amz-checksum-algorithm")
    if wanted and algorithm_named(wanted).value not in result.checksums:
        raise not_implemented("Changing the checksum algorithm while copying")
    return result


def _headers(version: Version, request: Request) -> dict[str, str]:
    attributes = version.attributes
    headers = {
        "Last-Modified": xml.http_time(version.modified),
        "ETag": version.quoted_etag,
        "Accept-Ranges": "bytes",
        **_version_header(version),
    }
    headers.update({name.title(): value for name, value in attributes.headers.items()})
    headers.setdefault("x-amz-server-side-encryption".title(), "AES256")
    headers.update(
        {_META + name: value.encode().decode("latin-1") for name, value in attributes.metadata.items()}
    )
    if attributes.tags:
        headers["x-amz-tagging-count"] = str(len(attributes.tags))
    if attributes.parts and "partNumber" in request.query:
        headers["x-amz-mp-parts-count"] = str(len(attributes.parts))
    if request.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED" and attributes.checksums:
        headers.update({Algorithm(name).header: value for name, value in attributes.checksums.items()})
        headers["x-amz-checksum-type"] = attributes.checksum_type
    for name in _OVERRIDES:
        value = request.query.get(f"response-{name}")
        if value is not None:
            headers[name.title()] = value
    return headers


def _drop_checksums(headers: dict[str, str]) -> None:
    for name in [*(algorithm.header for algorithm in Algorithm), "x-amz-checksum-type"]:
        headers.pop(name, None)


def _part_range(request: Request, version: Version) -> tuple[int, int] | None:
    if "partNumber" not in request.query:
        return None
    number = request.integer("partNumber", 1, 1, 10_000)
    if "range" in request.headers:
        raise S3Error("InvalidRequest", "Cannot specify both Range header and partNumber query parameter")
    sizes = version.attributes.parts or (version.size,)
    if number > len(sizes):
        counts = {"PartNumberRequested": str(number), "ActualPartCount": str(len(sizes))}
        raise S3Error("InvalidPartNumber", **counts)
    start = sum(sizes[: number - 1])
    return start, start + sizes[number - 1]


def _written_headers(version: Version) -> dict[str, str]:
    headers = _version_header(version)
    stored = version.attributes.headers
    headers["x-amz-server-side-encryption"] = stored.get("x-amz-server-side-encryption", "AES256")
    if version.attributes.checksums:
        headers["x-amz-checksum-type"] = version.attributes.checksum_type
    return headers


def _version_header(version: Version) -> dict[str, str]:
    return {"x-amz-version-id": version.version} if version.version != "null" else {}


def _utf8(value: str) -> str:
    """WSGI hands headers over as latin-1; clients send UTF-8."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value
