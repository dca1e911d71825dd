"""S3 over HTTP with boto3: objects, conditions, checksums, tags, presigned URLs, versions."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from tests.local_aws.s3.s3_server import RunningS3, running_s3

AWKWARD_KEYS = [
    "a/b.txt",
    "spaces and+plus",
    "percent%2Fslash%",
    "../../etc/passwd",
    "/leading//double/",
    "ünï/çødé/犬.jpg",
    "q?a=b&c=d#e",
    "semi;colon:and@at",
    ".",
    "quote'\"<>&",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningS3]:
    with running_s3(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture(scope="module")
def s3(server: RunningS3) -> Any:
    client = server.client()
    client.create_bucket(Bucket="bucket")
    return client


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def status(error: pytest.ExceptionInfo[ClientError]) -> int:
    return int(error.value.response["ResponseMetadata"]["HTTPStatusCode"])


@pytest.mark.parametrize("key", AWKWARD_KEYS)
def test_any_key_is_only_a_name(s3: Any, server: RunningS3, tmp_path: Path, key: str) -> None:
    body = key.encode()
    s3.put_object(Bucket="bucket", Key=key, Body=body)
    assert s3.get_object(Bucket="bucket", Key=key)["Body"].read() == body
    listed = s3.list_objects_v2(Bucket="bucket", Prefix=key)["Contents"]
    assert key in [entry["Key"] for entry in listed]
    s3.delete_object(Bucket="bucket", Key=key)
    with pytest.raises(ClientError) as error:
        s3.get_object(Bucket="bucket", Key=key)
    assert code(error) == "NoSuchKey"


def test_metadata_and_headers_come_back(s3: Any) -> None:
    s3.put_object(
        Bucket="bucket",
        Key="headers",
        Body=b"x",
        ContentType="image/jpeg",
        CacheControl="no-cache",
        ContentDisposition="attachment",
        Metadata={"Breed": "beagle"},
        StorageClass="STANDARD_IA",
    )
    head = s3.head_object(Bucket="bucket", Key="headers")
    assert head["ContentType"] == "image/jpeg"
    assert head["CacheControl"] == "no-cache"
    assert head["ContentDisposition"] == "attachment"
    assert head["Metadata"] == {"breed": "beagle"}
    assert head["StorageClass"] == "STANDARD_IA"
    assert head["ETag"] == f'"{hashlib.md5(b"x").hexdigest()}"'
    assert abs(head["LastModified"] - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("header", "expected", "content_range"),
    [
        ("bytes=0-3", b"0123", "bytes 0-3/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=-2", b"89", "bytes 8-9/10"),
        ("bytes=5-100", b"56789", "bytes 5-9/10"),
    ],
)
def test_ranges(s3: Any, header: str, expected: bytes, content_range: str) -> None:
    s3.put_object(Bucket="bucket", Key="digits", Body=b"0123456789")
    answer = s3.get_object(Bucket="bucket", Key="digits", Range=header)
    assert answer["Body"].read() == expected
    assert answer["ContentRange"] == content_range
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 206


def test_a_range_beyond_the_end_is_416(s3: Any) -> None:
    s3.put_object(Bucket="bucket", Key="digits", Body=b"0123456789")
    with pytest.raises(ClientError) as error:
        s3.get_object(Bucket="bucket", Key="digits", Range="bytes=10-")
    assert (code(error), status(error)) == ("InvalidRange", 416)


def test_conditional_reads(s3: Any) -> None:
    etag = s3.put_object(Bucket="bucket", Key="conditional", Body=b"1")["ETag"]
    assert s3.get_object(Bucket="bucket", Key="conditional", IfMatch=etag)
    with pytest.raises(ClientError) as error:
        s3.get_object(Bucket="bucket", Key="conditional", IfNoneMatch=etag)
    assert status(error) == 304
    with pytest.raises(ClientError) as error:
        s3.get_object(Bucket="bucket", Key="conditional", IfMatch='"other"')
    assert status(error) == 412
    with pytest.raises(ClientError) as error:
        s3.head_object(
            Bucket="bucket",
            Key="conditional",
            IfModifiedSince=s3.head_object(Bucket="bucket", Key="conditional")["LastModified"],
        )
    assert status(error) == 304
    # A moment in the future is no condition, as recorded on S3 (recorded.py).
    future = datetime.now(UTC) + timedelta(hours=1)
    assert s3.head_object(Bucket="bucket", Key="conditional", IfModifiedSince=future)


def test_only_one_of_many_writers_gets_a_lock(server: RunningS3, s3: Any) -> None:
    def take(number: int) -> bool:
        try:
            s3.put_object(Bucket="bucket", Key="lock", Body=str(number).encode(), IfNoneMatch="*")
        except s3.exceptions.ClientError as error:
            if error.response["Error"]["Code"] != "PreconditionFailed":
                raise
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(24))) == 1


def test_put_and_delete_if_match(s3: Any) -> None:
    with pytest.raises(ClientError) as error:
        s3.put_object(Bucket="bucket", Key="swap", Body=b"1", IfMatch='"nothing"')
    assert code(error) == "NoSuchKey"
    first = s3.put_object(Bucket="bucket", Key="swap", Body=b"1")["ETag"]
    second = s3.put_object(Bucket="bucket", Key="swap", Body=b"2", IfMatch=first)["ETag"]
    with pytest.raises(ClientError) as error:
        s3.put_object(Bucket="bucket", Key="swap", Body=b"3", IfMatch=first)
    assert code(error) == "PreconditionFailed"
    with pytest.raises(ClientError) as error:
        s3.delete_object(Bucket="bucket", Key="swap", IfMatch=first)
    assert code(error) == "PreconditionFailed"
    s3.delete_object(Bucket="bucket", Key="swap", IfMatch=second)


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_checksums_are_kept_and_returned(s3: Any, algorithm: str) -> None:
    body = b"123456789"
    # boto3 alone cannot compute these two: their check values are those of the catalogue of CRCs.
    known = {"CRC32C": "e3069283", "CRC64NVME": "ae8b14860a799888"}
    if algorithm in known:
        given = {f"Checksum{algorithm}": base64.b64encode(bytes.fromhex(known[algorithm])).decode()}
    else:
        given = {"ChecksumAlgorithm": algorithm}
    put = s3.put_object(Bucket="bucket", Key="sum", Body=body, **given)
    got = s3.get_object(Bucket="bucket", Key="sum", ChecksumMode="ENABLED")
    assert put[f"Checksum{algorithm}"] == got[f"Checksum{algorithm}"]
    assert got["Body"].read() == body
    attributes = s3.get_object_attributes(
        Bucket="bucket", Key="sum", ObjectAttributes=["Checksum", "ObjectSize", "ETag"]
    )
    assert attributes["Checksum"][f"Checksum{algorithm}"] == put[f"Checksum{algorithm}"]
    assert attributes["ObjectSize"] == 9


def test_wrong_digests_are_refused(s3: Any) -> None:
    wrong = base64.b64encode(zlib.crc32(b"other").to_bytes(4, "big")).decode()
    for header in ({"ChecksumCRC32": wrong}, {"ContentMD5": base64.b64encode(b"0" * 16).decode()}):
        with pytest.raises(ClientError) as error:
            s3.put_object(Bucket="bucket", Key="damaged", Body=b"photos", **header)
        assert code(error) == "BadDigest"
    with pytest.raises(ClientError):
        s3.head_object(Bucket="bucket", Key="damaged")


def framed(chunks: list[bytes], trailer: str, signed: bool) -> bytes:
    signature = ";chunk-signature=" + "0" * 64 if signed else ""
    body = b"".join(f"{len(c):x}{signature}\r\n".encode() + c + b"\r\n" for c in chunks)
    return body + f"0{signature}\r\n{trailer}\r\n".encode()


@pytest.mark.parametrize("signed", [True, False])
def test_aws_chunked_bodies_are_decoded_and_their_trailers_checked(
    s3: Any, server: RunningS3, signed: bool
) -> None:
    chunks = [os.urandom(70_000), os.urandom(5), b"end"]
    payload = b"".join(chunks)
    good = base64.b64encode(zlib.crc32(payload).to_bytes(4, "big")).decode()
    for value, expected in ((good, 200), ("AAAAAA==", 400)):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        kind = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" if signed else "STREAMING-UNSIGNED-PAYLOAD"
        body = framed(chunks, f"x-amz-checksum-crc32:{value}\r\n", signed)
        headers = {
            "x-amz-content-sha256": f"{kind}-TRAILER",
            "content-encoding": "aws-chunked",
            "x-amz-decoded-content-length": str(len(payload)),
            "x-amz-trailer": "x-amz-checksum-crc32",
        }
        connection.request("PUT", f"/bucket/framed-{expected}", body, headers)
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == expected, text
        connection.close()
    got = s3.get_object(Bucket="bucket", Key="framed-200")
    assert got["Body"].read() == payload
    assert "ContentEncoding" not in got
    with pytest.raises(ClientError):
        s3.head_object(Bucket="bucket", Key="framed-400")


def test_a_body_cut_short_stores_nothing(s3: Any, server: RunningS3) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.putrequest("PUT", "/bucket/short")
    connection.putheader("Content-Length", "1000")
    connection.endheaders()
    connection.send(b"x" * 10)
    connection.close()
    time.sleep(0)
    with pytest.raises(ClientError) as error:
        s3.head_object(Bucket="bucket", Key="short")
    assert status(error) == 404


def test_tags(s3: Any) -> None:
    s3.put_object(Bucket="bucket", Key="tagged", Body=b"", Tagging="a=1&b=2%203")
    assert s3.head_object(Bucket="bucket", Key="tagged")["TagCount"] == 2
    s3.put_object_tagging(Bucket="bucket", Key="tagged", Tagging={"TagSet": [{"Key": "c", "Value": "a b+c"}]})
    assert s3.get_object_tagging(Bucket="bucket", Key="tagged")["TagSet"] == [{"Key": "c", "Value": "a b+c"}]
    s3.delete_object_tagging(Bucket="bucket", Key="tagged")
    assert s3.get_object_tagging(Bucket="bucket", Key="tagged")["TagSet"] == []
    eleven = {"TagSet": [{"Key": str(number), "Value": ""} for number in range(11)]}
    with pytest.raises(ClientError) as error:
        s3.put_object_tagging(Bucket="bucket", Key="tagged", Tagging=eleven)
    assert code(error) == "InvalidTag"


def test_copy(s3: Any) -> None:
    s3.put_object(Bucket="bucket", Key="from", Body=b"bytes", Metadata={"a": "1"}, ContentType="text/x")
    s3.copy_object(Bucket="bucket", Key="to", CopySource={"Bucket": "bucket", "Key": "from"})
    s3.delete_object(Bucket="bucket", Key="from")
    got = s3.get_object(Bucket="bucket", Key="to")
    assert (got["Body"].read(), got["Metadata"], got["ContentType"]) == (b"bytes", {"a": "1"}, "text/x")
    with pytest.raises(ClientError) as error:
        s3.copy_object(Bucket="bucket", Key="to", CopySource={"Bucket": "bucket", "Key": "to"})
    assert code(error) == "InvalidRequest"
    s3.copy_object(
        Bucket="bucket",
        Key="to",
        CopySource={"Bucket": "bucket", "Key": "to"},
        MetadataDirective="REPLACE",
        Metadata={"b": "2"},
    )
    assert s3.head_object(Bucket="bucket", Key="to")["Metadata"] == {"b": "2"}
    with pytest.raises(ClientError) as error:
        s3.copy_object(Bucket="bucket", Key="x", CopySource={"Bucket": "bucket", "Key": "absent"})
    assert code(error) == "NoSuchKey"


def test_presigned_urls(s3: Any, server: RunningS3) -> None:
    put = s3.generate_presigned_url("put_object", Params={"Bucket": "bucket", "Key": "pre signed"})
    request = urllib.request.Request(put, data=b"via url", method="PUT")
    assert urllib.request.urlopen(request, timeout=10).status == 200
    get = s3.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "pre signed"})
    assert urllib.request.urlopen(get, timeout=10).read() == b"via url"
    v4 = server.client(signature_version="s3v4")
    late = v4.generate_presigned_url(
        "get_object", Params={"Bucket": "bucket", "Key": "pre signed"}, ExpiresIn=1
    )
    past = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y%m%dT%H%M%SZ")
    begin = late.index("X-Amz-Date=") + len("X-Amz-Date=")
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(late[:begin] + past + late[begin + len(past) :], timeout=10)
    assert error.value.code == 403
    assert b"Request has expired" in error.value.read()


def test_virtual_host_style(s3: Any, server: RunningS3) -> None:
    s3.put_object(Bucket="bucket", Key="in/virtual", Body=b"host")
    for host in ("bucket.localhost", "bucket.s3.localhost", "bucket.s3.us-east-1.amazonaws.com"):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("GET", "/in/virtual", headers={"Host": f"{host}:{server.port}"})
        assert connection.getresponse().read() == b"host"
        connection.close()
    url = server.client(signature_version="s3v4", s3={"addressing_style": "virtual"}).generate_presigned_url(
        "get_object", Params={"Bucket": "bucket", "Key": "in/virtual"}
    )
    assert urlsplit(url).query


def test_versions(server: RunningS3) -> None:
    s3 = server.client()
    s3.create_bucket(Bucket="versioned")
    before = s3.put_object(Bucket="versioned", Key="k", Body=b"0")
    assert "VersionId" not in before
    s3.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    first = s3.put_object(Bucket="versioned", Key="k", Body=b"1")["VersionId"]
    second = s3.put_object(Bucket="versioned", Key="k", Body=b"2")["VersionId"]
    assert s3.get_object(Bucket="versioned", Key="k", VersionId=first)["Body"].read() == b"1"
    assert s3.get_object(Bucket="versioned", Key="k", VersionId="null")["Body"].read() == b"0"
    marker = s3.delete_object(Bucket="versioned", Key="k")
    assert marker["DeleteMarker"]
    with pytest.raises(ClientError) as error:
        s3.get_object(Bucket="versioned", Key="k")
    assert code(error) == "NoSuchKey"
    assert error.value.response["ResponseMetadata"]["HTTPHeaders"]["x-amz-delete-marker"] == "true"
    listed = s3.list_object_versions(Bucket="versioned")
    assert [entry["VersionId"] for entry in listed["Versions"]] == [second, first, "null"]
    assert [entry["IsLatest"] for entry in listed["DeleteMarkers"]] == [True]
    s3.delete_object(Bucket="versioned", Key="k", VersionId=marker["VersionId"])
    assert s3.get_object(Bucket="versioned", Key="k")["Body"].read() == b"2"
    s3.delete_object(Bucket="versioned", Key="k", VersionId=second)
    assert s3.get_object(Bucket="versioned", Key="k")["Body"].read() == b"1"
    s3.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Suspended"})
    s3.put_object(Bucket="versioned", Key="k", Body=b"3")
    assert s3.get_object(Bucket="versioned", Key="k", VersionId="null")["Body"].read() == b"3"
    pages = s3.get_paginator("list_object_versions").paginate(
        Bucket="versioned", PaginationConfig={"PageSize": 1}
    )
    assert [v["VersionId"] for page in pages for v in page.get("Versions", [])] == ["null", first]
    with pytest.raises(ClientError) as error:
        s3.delete_bucket(Bucket="versioned")
    assert code(error) == "BucketNotEmpty"


def test_delete_many(s3: Any) -> None:
    for number in range(3):
        s3.put_object(Bucket="bucket", Key=f"many/{number}", Body=b"")
    answer = s3.delete_objects(
        Bucket="bucket", Delete={"Objects": [{"Key": f"many/{number}"} for number in range(4)]}
    )
    assert {entry["Key"] for entry in answer["Deleted"]} == {f"many/{number}" for number in range(4)}
    assert s3.list_objects_v2(Bucket="bucket", Prefix="many/")["KeyCount"] == 0


def test_of_many_only_those_whose_condition_holds_are_deleted(s3: Any) -> None:
    etags = [s3.put_object(Bucket="bucket", Key=f"if/{n}", Body=bytes(n))["ETag"] for n in range(3)]
    wanted = [{"Key": f"if/{n}", "ETag": etags[max(n, 1)]} for n in range(3)]
    answer = s3.delete_objects(Bucket="bucket", Delete={"Objects": wanted})
    assert [entry["Key"] for entry in answer["Deleted"]] == ["if/1", "if/2"]
    assert [(entry["Key"], entry["Code"]) for entry in answer["Errors"]] == [("if/0", "PreconditionFailed")]
    left = s3.list_objects_v2(Bucket="bucket", Prefix="if/")["Contents"]
    assert [entry["Key"] for entry in left] == ["if/0"]


def test_blobs_of_what_is_gone_are_gone(tmp_path: Path) -> None:
    with running_s3(tmp_path) as server:
        s3 = server.client()
        s3.create_bucket(Bucket="bucket")
        for body in (b"1", b"2", b"3"):
            s3.put_object(Bucket="bucket", Key="k", Body=body)
        upload = s3.create_multipart_upload(Bucket="bucket", Key="m")["UploadId"]
        s3.upload_part(Bucket="bucket", Key="m", UploadId=upload, PartNumber=1, Body=b"x")
        s3.abort_multipart_upload(Bucket="bucket", Key="m", UploadId=upload)
        assert len([path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]) == 1
        s3.delete_object(Bucket="bucket", Key="k")
        assert not [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]


def test_errors_are_xml_with_the_right_code(s3: Any, server: RunningS3) -> None:
    with pytest.raises(ClientError) as error:
        s3.head_bucket(Bucket="absent-bucket")
    assert status(error) == 404
    with pytest.raises(ClientError) as error:
        s3.put_object(Bucket="absent-bucket", Key="k", Body=b"")
    assert code(error) == "NoSuchBucket"
    with pytest.raises(ClientError) as error:
        s3.put_object(Bucket="bucket", Key="k" * 1025, Body=b"")
    assert code(error) == "KeyTooLongError"
    with pytest.raises(ClientError) as error:
        s3.put_bucket_website(Bucket="bucket", WebsiteConfiguration={"IndexDocument": {"Suffix": "i"}})
    assert (code(error), status(error)) == ("NotImplemented", 501)
    with pytest.raises(ClientError) as error:
        s3.put_object(Bucket="bucket", Key="k", SSECustomerAlgorithm="AES256", SSECustomerKey="0" * 32)
    assert code(error) == "NotImplemented"
    with pytest.raises(ClientError) as error:
        s3.put_object(Bucket="bucket", Key="k", Metadata={"a": "x" * 3000})
    assert code(error) == "MetadataTooLarge"
