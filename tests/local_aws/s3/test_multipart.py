"""S3 over HTTP with boto3: multipart uploads."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import resource
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from tests.local_aws.s3.s3_server import RunningS3, running_s3

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningS3]:
    with running_s3(tmp_path_factory.mktemp("s3")) as running:
        running.client().create_bucket(Bucket="bucket")
        yield running


@pytest.fixture(scope="module")
def s3(server: RunningS3) -> Any:
    return server.client()


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def test_boto3_transfers_large_files_in_parts(s3: Any) -> None:
    body = os.urandom(12 * MIB + 7)
    config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB, max_concurrency=4)
    s3.upload_fileobj(io.BytesIO(body), "bucket", "large", Config=config)
    head = s3.head_object(Bucket="bucket", Key="large", ChecksumMode="ENABLED")
    assert head["ETag"].endswith('-3"')
    assert head["ContentLength"] == len(body)
    assert head["ChecksumType"] == "COMPOSITE"
    copy = io.BytesIO()
    s3.download_fileobj("bucket", "large", copy, Config=config)
    assert copy.getvalue() == body
    part = s3.get_object(Bucket="bucket", Key="large", PartNumber=3)
    assert part["PartsCount"] == 3
    assert part["Body"].read() == body[10 * MIB :]


def test_steps_lists_and_copied_parts(s3: Any) -> None:
    source = os.urandom(6 * MIB)
    s3.put_object(Bucket="bucket", Key="source", Body=source)
    upload = s3.create_multipart_upload(Bucket="bucket", Key="steps", ContentType="x/y", Metadata={"m": "1"})
    where = {"Bucket": "bucket", "Key": "steps", "UploadId": upload["UploadId"]}
    assert [u["UploadId"] for u in s3.list_multipart_uploads(Bucket="bucket")["Uploads"]] == [
        upload["UploadId"]
    ]
    first = s3.upload_part_copy(
        **where, PartNumber=1, CopySource="bucket/source", CopySourceRange=f"bytes=0-{5 * MIB - 1}"
    )["CopyPartResult"]["ETag"]
    s3.upload_part(**where, PartNumber=2, Body=b"replaced")
    second = s3.upload_part(**where, PartNumber=2, Body=b"end")["ETag"]
    parts = s3.list_parts(**where)["Parts"]
    assert [(part["PartNumber"], part["Size"]) for part in parts] == [(1, 5 * MIB), (2, 3)]
    assert s3.list_parts(**where, MaxParts=1)["IsTruncated"]
    wanted = [{"PartNumber": 1, "ETag": first}, {"PartNumber": 2, "ETag": second}]
    done = s3.complete_multipart_upload(**where, MultipartUpload={"Parts": wanted})
    digests = hashlib.md5(source[: 5 * MIB]).digest() + hashlib.md5(b"end").digest()
    assert done["ETag"] == f'"{hashlib.md5(digests).hexdigest()}-2"'
    again = s3.complete_multipart_upload(**where, MultipartUpload={"Parts": wanted})
    assert (again["ETag"], again["Key"]) == (done["ETag"], "steps")
    got = s3.get_object(Bucket="bucket", Key="steps")
    assert got["Body"].read() == source[: 5 * MIB] + b"end"
    assert (got["ContentType"], got["Metadata"]) == ("x/y", {"m": "1"})
    assert "Uploads" not in s3.list_multipart_uploads(Bucket="bucket")


def test_bad_completions(s3: Any) -> None:
    where: dict[str, Any] = {"Bucket": "bucket", "Key": "bad"}
    where["UploadId"] = s3.create_multipart_upload(**where)["UploadId"]
    tags = [s3.upload_part(**where, PartNumber=number, Body=b"small")["ETag"] for number in (1, 2)]

    def complete(*parts: tuple[int, str]) -> str:
        listed = [{"PartNumber": number, "ETag": etag} for number, etag in parts]
        with pytest.raises(ClientError) as error:
            s3.complete_multipart_upload(**where, MultipartUpload={"Parts": listed})
        return code(error)

    assert complete((1, '"0"')) == "InvalidPart"
    assert complete((3, tags[0])) == "InvalidPart"
    assert complete((2, tags[1]), (1, tags[0])) == "InvalidPartOrder"
    assert complete((1, tags[0]), (2, tags[1])) == "EntityTooSmall"
    s3.abort_multipart_upload(**where)
    assert complete((1, tags[0])) == "NoSuchUpload"
    with pytest.raises(ClientError) as error:
        s3.upload_part(**where, PartNumber=1, Body=b"")
    assert code(error) == "NoSuchUpload"


def test_if_none_match_on_completion(s3: Any) -> None:
    s3.put_object(Bucket="bucket", Key="taken", Body=b"1")
    where: dict[str, Any] = {"Bucket": "bucket", "Key": "taken"}
    where["UploadId"] = s3.create_multipart_upload(**where)["UploadId"]
    etag = s3.upload_part(**where, PartNumber=1, Body=b"2")["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    with pytest.raises(ClientError) as error:
        s3.complete_multipart_upload(**where, MultipartUpload=parts, IfNoneMatch="*")
    assert code(error) == "PreconditionFailed"
    s3.complete_multipart_upload(**where, MultipartUpload=parts)
    assert s3.get_object(Bucket="bucket", Key="taken")["Body"].read() == b"2"


def test_whole_object_checksum(s3: Any) -> None:
    where: dict[str, Any] = {"Bucket": "bucket", "Key": "whole"}
    upload = s3.create_multipart_upload(**where, ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT")
    where["UploadId"] = upload["UploadId"]
    body = os.urandom(5 * MIB) + b"end"
    parts = [body[: 5 * MIB], body[5 * MIB :]]
    listed = []
    for number, part in enumerate(parts, start=1):
        answer = s3.upload_part(**where, PartNumber=number, Body=part, ChecksumAlgorithm="CRC32")
        listed.append(
            {"PartNumber": number, "ETag": answer["ETag"], "ChecksumCRC32": answer["ChecksumCRC32"]}
        )
    done = s3.complete_multipart_upload(**where, MultipartUpload={"Parts": listed})
    assert base64.b64decode(done["ChecksumCRC32"]) == zlib.crc32(body).to_bytes(4, "big")
    assert done["ChecksumType"] == "FULL_OBJECT"


@pytest.mark.slow
def test_a_gigabyte_passes_without_being_held(tmp_path: Path) -> None:
    """In one process with the client, which streams too: the peak would show a body held anywhere."""
    size = 1024 * MIB
    path = tmp_path / "gigabyte"
    with path.open("wb") as file:
        file.truncate(size)
    with running_s3(tmp_path / "s3") as server:
        s3 = server.client()
        s3.create_bucket(Bucket="bucket")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with path.open("rb") as file:
            s3.put_object(Bucket="bucket", Key="gigabyte", Body=file)
        s3.upload_file(str(path), "bucket", "in-parts")
        for key in ("gigabyte", "in-parts"):
            body = s3.get_object(Bucket="bucket", Key=key)["Body"]
            assert sum(len(chunk) for chunk in body.iter_chunks(MIB)) == size
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200 * 1024, f"peak memory grew by {grown / 1024:.0f} MiB"
