"""Operations on multipart uploads."""

from __future__ import annotations

from typing import Any

from local_aws.gateway.responses import iso_time
from local_aws.s3 import listing, xml
from local_aws.s3.api.objects import attributes_from, checksum_elements, copy_source
from local_aws.s3.blobs import CHUNK
from local_aws.s3.body import read_document, receive
from local_aws.s3.checksums import Algorithm, Digests, algorithm_named
from local_aws.s3.conditions import Conditions, parse_copy_range
from local_aws.s3.errors import S3Error
from local_aws.s3.http import Request, Response, encode_key, encoding_of
from local_aws.s3.multipart import MOST_PARTS, WantedPart, joined_etag
from local_aws.s3.objects import Part, Upload, Version, check_key
from local_aws.s3.store import S3Store

OWNER = {"ID": "75aa57f09aa0c8caeab4f8c24e99d10f8e7faeebf76c078efc7c6caea54ba06a", "DisplayName": "local-aws"}


def create_upload(store: S3Store, request: Request) -> Response:
    """CreateMultipartUpload."""
    check_key(request.key)
    named = request.headers.get("x-amz-checksum-algorithm", "")
    algorithm = algorithm_named(named) if named else None
    kind = request.headers.get("x-amz-checksum-type", "") or _default_type(algorithm)
    upload = store.multipart.create(
        request.bucket, request.key, attributes_from(request), algorithm.name if algorithm else "", kind
    )
    body = {"Bucket": upload.bucket, "Key": upload.key, "UploadId": upload.id}
    headers = {"x-amz-server-side-encryption": "AES256"}
    if algorithm is not None:
        headers |= {"x-amz-checksum-algorithm": algorithm.name, "x-amz-checksum-type": kind}
    return Response.xml(xml.document("InitiateMultipartUploadResult", body), headers)


def put_part(store: S3Store, request: Request) -> Response:
    """UploadPart, and UploadPartCopy where the request names a source."""
    upload = store.multipart.get(request.bucket, request.key, request.query["uploadId"])
    number = _part_number(request)
    algorithms = (Algorithm[upload.algorithm],) if upload.algorithm else ()
    if "x-amz-copy-source" in request.headers:
        return _copy_part(store, request, upload, number, algorithms)
    with store.blobs.writing() as blob:
        digests = receive(request, blob, algorithms)
        checksums = {algorithm.value: value for algorithm, value in digests.values.items()}
        part = store.multipart.put_part(upload, number, blob, digests.md5_hex, checksums)
    headers = {"ETag": f'"{part.etag}"', "x-amz-server-side-encryption": "AES256"}
    headers |= {algorithm.header: value for algorithm, value in digests.values.items()}
    return Response(200, b"", headers)


def _part_number(request: Request) -> int:
    text = request.query.get("partNumber", "")
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:9]) <= MOST_PARTS:
        message = f"Part number must be an integer between 1 and {MOST_PARTS}, inclusive"
        raise S3Error("InvalidArgument", message, ArgumentName="partNumber", ArgumentValue=text)
    return int(text)


def complete_upload(store: S3Store, request: Request) -> Response:
    """CompleteMultipartUpload. One that is sent again, because its answer was lost, gets the same answer."""
    wanted = _wanted_parts(read_document(request))
    try:
        upload = store.multipart.get(request.bucket, request.key, request.query["uploadId"])
        joined = store.multipart.join(upload, wanted)
        version = store.complete(joined, Conditions.from_headers(request.headers))
    except S3Error as error:
        completed = _completed_before(store, request, wanted) if error.code == "NoSuchUpload" else None
        if completed is None:
            raise
        version = completed
    body: dict[str, Any] = {
        "Location": f"{request.url}/{version.bucket}/{encode_key(version.key, 'url')}",
        "Bucket": version.bucket,
        "Key": version.key,
        "ETag": version.quoted_etag,
        **checksum_elements(version),
    }
    if version.attributes.checksums:
        body["ChecksumType"] = version.attributes.checksum_type
    headers = {"x-amz-server-side-encryption": "AES256"}
    if version.version != "null":
        headers["x-amz-version-id"] = version.version
    return Response.xml(xml.document("CompleteMultipartUploadResult", body), headers)


def _completed_before(store: S3Store, request: Request, wanted: list[WantedPart]) -> Version | None:
    try:
        version = store.head(request.bucket, request.key)
        made = joined_etag([part.etag.strip('"') for part in wanted])
    except (S3Error, ValueError):
        return None
    return version if version.etag == made else None


def abort_upload(store: S3Store, request: Request) -> Response:
    """AbortMultipartUpload."""
    store.multipart.abort(store.multipart.get(request.bucket, request.key, request.query["uploadId"]))
    return Response(204)


def list_parts(store: S3Store, request: Request) -> Response:
    """ListParts."""
    upload = store.multipart.get(request.bucket, request.key, request.query["uploadId"])
    marker = request.integer("part-number-marker", 0)
    most = min(request.integer("max-parts", 1000), 1000)
    parts = store.multipart.parts(upload, marker, most + 1)
    shown, more = parts[:most], len(parts) > most
    body = {
        "Bucket": upload.bucket,
        "Key": upload.key,
        "UploadId": upload.id,
        "Initiator": OWNER,
        "Owner": OWNER,
        "StorageClass": upload.attributes.headers.get("x-amz-storage-class", "STANDARD"),
        "PartNumberMarker": marker,
        "NextPartNumberMarker": shown[-1].number if shown else 0,
        "MaxParts": most,
        "IsTruncated": more,
        "ChecksumAlgorithm": upload.algorithm or None,
        "ChecksumType": upload.checksum_type or None,
        "Part": [_part_element(part) for part in shown],
    }
    return Response.xml(xml.document("ListPartsResult", body))


def list_uploads(store: S3Store, request: Request) -> Response:
    """ListMultipartUploads (without a delimiter)."""
    store.buckets.get(request.bucket)
    if request.query.get("delimiter"):
        raise S3Error("NotImplemented", "delimiter in ListMultipartUploads is not supported by local_aws.")
    encoding = encoding_of(request)
    most = min(request.integer("max-uploads", 1000), 1000)
    key_marker, id_marker = request.query.get("key-marker", ""), request.query.get("upload-id-marker", "")
    # Without an upload id, listing goes on behind all uploads of the marker's key.
    after = (key_marker, id_marker or "\x7f") if key_marker else ("", "")
    uploads, more = listing.list_uploads(
        store.index, request.bucket, request.query.get("prefix", ""), after, most
    )
    body = {
        "Bucket": request.bucket,
        "KeyMarker": encode_key(key_marker, encoding),
        "UploadIdMarker": id_marker,
        "NextKeyMarker": encode_key(uploads[-1].key, encoding) if more else None,
        "NextUploadIdMarker": uploads[-1].id if more else None,
        "Prefix": encode_key(request.query.get("prefix", ""), encoding),
        "EncodingType": encoding,
        "MaxUploads": most,
        "IsTruncated": more,
        "Upload": [_upload_element(upload, encoding) for upload in uploads],
    }
    return Response.xml(xml.document("ListMultipartUploadsResult", body))


def _copy_part(
    store: S3Store, request: Request, upload: Upload, number: int, algorithms: tuple[Algorithm, ...]
) -> Response:
    bucket, key, version_id = copy_source(request)
    source, file = store.open(bucket, key, version_id)
    with file:
        Conditions.from_headers(request.headers, "x-amz-copy-source-").check_read(source, copying=True)
        start, end = parse_copy_range(request.headers.get("x-amz-copy-source-range"), source.size)
        digests = Digests(algorithms)
        file.seek(start)
        left = end - start
        with store.blobs.writing() as blob:
            while left > 0 and (chunk := file.read(min(CHUNK, left))):
                left -= len(chunk)
                digests.update(chunk)
                blob.write(chunk)
            blob.finish()
            checksums = {algorithm.value: value for algorithm, value in digests.values.items()}
            part = store.multipart.put_part(upload, number, blob, digests.md5_hex, checksums)
    body = {"LastModified": iso_time(part.modified), "ETag": f'"{part.etag}"', **_checksums(part)}
    return Response.xml(xml.document("CopyPartResult", body))


def _default_type(algorithm: Algorithm | None) -> str:
    if algorithm is None:
        return ""
    return "FULL_OBJECT" if algorithm is Algorithm.CRC64NVME else "COMPOSITE"


def _wanted_parts(body: bytes) -> list[WantedPart]:
    parsed = xml.parse(body, "CompleteMultipartUpload", frozenset({"Part"}))
    parts = []
    for part in parsed.get("Part", []):
        try:
            number, etag = int(part["PartNumber"]), str(part["ETag"])
        except (KeyError, TypeError, ValueError):
            raise S3Error("MalformedXML") from None
        checksums = {
            algorithm: part[algorithm.element] for algorithm in Algorithm if algorithm.element in part
        }
        parts.append(WantedPart(number, etag, checksums))
    return parts


def _part_element(part: Part) -> dict[str, Any]:
    return {
        "PartNumber": part.number,
        "LastModified": iso_time(part.modified),
        "ETag": f'"{part.etag}"',
        "Size": part.size,
        **_checksums(part),
    }


def _checksums(part: Part) -> dict[str, str]:
    return {Algorithm(name).element: value for name, value in part.checksums.items()}


def _upload_element(upload: Upload, encoding: str | None) -> dict[str, Any]:
    return {
        "UploadId": upload.id,
        "Key": encode_key(upload.key, encoding),
        "Initiated": iso_time(upload.created),
        "StorageClass": "STANDARD",
        "Owner": OWNER,
        "Initiator": OWNER,
        "ChecksumAlgorithm": upload.algorithm or None,
        "ChecksumType": upload.checksum_type or None,
    }
