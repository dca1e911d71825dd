"""Multipart uploads and ranges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.local_aws.s3.recorded.case import BAD_RANGE, BUCKET, ETAG, NO_UPLOAD, Case, Fixture, error, ok


def parts(f: Fixture) -> list[Case]:
    """Multipart uploads and ranges."""
    multi: dict[str, Any] = {"Bucket": BUCKET, "Key": "multi"}

    def complete(upload: str, *listed: tuple[int, str]) -> Callable[[Any], Any]:
        named = {"Parts": [{"PartNumber": number, "ETag": etag} for number, etag in listed]}
        return lambda s3: s3.complete_multipart_upload(**multi, UploadId=upload, MultipartUpload=named)

    def copied(span: str) -> Callable[[Any], Any]:
        return lambda s3: s3.upload_part_copy(
            **multi, UploadId=f.upload, PartNumber=9, CopySource=f"{BUCKET}/ten", CopySourceRange=span
        )

    def too_small(s3: Any) -> Any:
        second = s3.upload_part(**multi, UploadId=f.upload, PartNumber=2, Body=b"data")["ETag"]
        return complete(f.upload, (1, f.part), (2, second))(s3)

    number = "Part number must be an integer between 1 and 10000, inclusive"
    invalid = (
        "One or more of the specified parts could not be found.  The part may not have been uploaded, or the specified "
        "entity tag may not match the part's entity tag."
    )
    cases = [
        error(
            "no_such_upload.part",
            lambda s3: s3.upload_part(**multi, UploadId="fakeid", PartNumber=1, Body=b""),
            404,
            "NoSuchUpload",
            NO_UPLOAD,
            UploadId="fakeid",
        ),
        error(
            "no_such_upload.complete",
            complete("fakeid", (1, ETAG)),
            404,
            "NoSuchUpload",
            NO_UPLOAD,
            UploadId="fakeid",
        ),
        error(
            "no_such_upload.abort",
            lambda s3: s3.abort_multipart_upload(**multi, UploadId="fakeid"),
            404,
            "NoSuchUpload",
            NO_UPLOAD,
            UploadId="fakeid",
        ),
        error(
            "no_such_upload.list",
            lambda s3: s3.list_parts(**multi, UploadId="fakeid"),
            404,
            "NoSuchUpload",
            NO_UPLOAD,
        ),
        error(
            "part_number.negative",
            lambda s3: s3.upload_part(**multi, UploadId=f.upload, PartNumber=-1, Body=b""),
            400,
            "InvalidArgument",
            number,
            ArgumentName="partNumber",
            ArgumentValue="-1",
        ),
        error(
            "complete.unordered",
            complete(f.upload, (2, f.part), (1, f.part)),
            400,
            "InvalidPartOrder",
            "The list of parts was not in ascending order. Parts must be ordered by part number.",
            UploadId=f.upload,
        ),
        error(
            "complete.no_parts",
            complete(f.upload),
            400,
            "InvalidRequest",
            "You must specify at least one part",
        ),
        error(
            "complete.too_small",
            too_small,
            400,
            "EntityTooSmall",
            "Your proposed upload is smaller than the minimum allowed size",
            ETag=f.part.strip('"'),
            MinSizeAllowed="5242880",
            PartNumber="1",
            ProposedSize="4",
        ),
        error(
            "complete.wrong_number",
            complete(f.upload, (7, f.part)),
            400,
            "InvalidPart",
            invalid,
            PartNumber="7",
            UploadId=f.upload,
        ),
        error(
            "complete.wrong_etag",
            complete(f.upload, (1, "d41d8cd98f00b204e9800998ecf8427e")),
            400,
            "InvalidPart",
            invalid,
            PartNumber="1",
            UploadId=f.upload,
        ),
        error(
            "copy_range.size",
            copied("bytes=0-100"),
            400,
            "InvalidArgument",
            "Range specified is not valid for source object of size: 10",
            ArgumentValue="bytes=0-100",
        ),
        error(
            "copy_range.beyond",
            copied("bytes=100-200"),
            400,
            "InvalidRequest",
            "The specified copy range is invalid for the source object size",
        ),
        ok("copy_range.whole", copied("bytes=0-9"), check=lambda a: bool(a["CopyPartResult"]["ETag"])),
        error(
            "range.beyond",
            lambda s3: s3.get_object(Bucket=BUCKET, Key="ten", Range="bytes=100-200"),
            416,
            "InvalidRange",
            "The requested range is not satisfiable",
            ActualObjectSize="10",
            RangeRequested="bytes=100-200",
        ),
        error(
            "range.none",
            lambda s3: s3.get_object(Bucket=BUCKET, Key="ten", Range="bytes=-0"),
            416,
            "InvalidRange",
            "The requested range is not satisfiable",
            ActualObjectSize="10",
            RangeRequested="bytes=-0",
        ),
        error(
            "part_number.get",
            lambda s3: s3.get_object(Bucket=BUCKET, Key="ten", PartNumber=10),
            416,
            "InvalidPartNumber",
            "The requested partnumber is not satisfiable",
            ActualPartCount="1",
            PartNumberRequested="10",
        ),
    ]
    for span in (
        "0-8",
        "bytes=1-0",
        "bytes=-1-",
        "bytes=0--1",
        "bytes=0-1,3-4,7-9",
        "bytes=-",
        "bytes=-0",
        "bytes=1-",
        "bytes=-2",
        "bytes=-15",
    ):
        cases.append(
            error(
                f"copy_range.{span}",
                copied(span),
                400,
                "InvalidArgument",
                BAD_RANGE,
                ArgumentName="x-amz-copy-source-range",
                ArgumentValue=span,
            )
        )
    for span, length, shown in (
        ("bytes=0-8", 9, "bytes 0-8/10"),
        ("bytes=1-1", 1, "bytes 1-1/10"),
        ("bytes=1-", 9, "bytes 1-9/10"),
        ("bytes=-2", 2, "bytes 8-9/10"),
        ("bytes=-15", 10, "bytes 0-9/10"),
        ("bytes=0-100", 10, "bytes 0-9/10"),
    ):
        cases.append(
            ok(
                f"get_object_range.{span}",
                lambda s3, r=span: s3.get_object(Bucket=BUCKET, Key="ten", Range=r),
                ContentLength=length,
                ContentRange=shown,
            )
        )
    for span in ("bytes=1-0", "bytes=-", "bytes=0--1", "bytes=0-1,3-4,7-9", "0-8"):
        cases.append(
            ok(
                f"get_object_range.{span}",
                lambda s3, r=span: s3.get_object(Bucket=BUCKET, Key="ten", Range=r),
                ContentLength=10,
                absent=["ContentRange"],
            )
        )
    return cases
