"""Lists of objects, versions, uploads, parts and buckets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.local_aws.s3.recorded.case import BUCKET, VERSIONED, Case, Fixture, error, keys, ok, prefixes


def listing(f: Fixture) -> list[Case]:
    """test_s3_list_operations."""
    t = "TestS3ListObjects"

    def v1(**more: Any) -> Callable[[Any], Any]:
        return lambda s3: s3.list_objects(Bucket=BUCKET, **{"Prefix": "test/", **more})

    def v2(**more: Any) -> Callable[[Any], Any]:
        return lambda s3: s3.list_objects_v2(Bucket=BUCKET, **{"Prefix": "test/", **more})

    def versions(**more: Any) -> Callable[[Any], Any]:
        return lambda s3: s3.list_object_versions(Bucket=VERSIONED, **more)

    def uploads(**more: Any) -> Callable[[Any], Any]:
        return lambda s3: s3.list_multipart_uploads(Bucket=BUCKET, **more)

    first = "test/bar/foo/123"
    cases = [
        ok(
            f"{t}.with_prefix[]",
            v1(MaxKeys=1),
            IsTruncated=True,
            MaxKeys=1,
            Prefix="test/",
            Marker="",
            check=keys(first),
            absent=["NextMarker", "Delimiter", "CommonPrefixes"],
        ),
        ok(
            f"{t}.with_prefix[/]",
            v1(Delimiter="/", MaxKeys=1),
            Delimiter="/",
            MaxKeys=1,
            IsTruncated=True,
            NextMarker="test/bar/",
            check=prefixes("test/bar/"),
            absent=["Contents"],
        ),
        ok(f"{t}.with_prefix[%2F]", v1(Delimiter="%2F", MaxKeys=1), MaxKeys=1, check=keys(first)),
        ok(
            f"{t}.next_marker",
            v1(),
            IsTruncated=False,
            check=keys(first, "test/foo/123", "test/foo/bar/123", "test/foo/bar/456"),
        ),
        ok(
            f"{t}.next_marker.rest",
            v1(Marker=first, MaxKeys=1),
            Marker=first,
            IsTruncated=True,
            check=keys("test/foo/123"),
            absent=["NextMarker"],
        ),
        ok(
            f"{t}.next_marker.empty", v1(Marker="", MaxKeys=1), Marker="", IsTruncated=True, check=keys(first)
        ),
        ok(
            f"{t}.empty_marker",
            v1(Prefix="none", Marker=""),
            IsTruncated=False,
            MaxKeys=1000,
            Marker="",
            absent=["Contents"],
        ),
        ok(
            "ListObjectsV2.with_prefix-1",
            v2(),
            KeyCount=4,
            IsTruncated=False,
            MaxKeys=1000,
            absent=["Delimiter", "StartAfter"],
        ),
        ok("ListObjectsV2.with_prefix-2", v2(Prefix="test/foo"), KeyCount=3),
        ok(
            "ListObjectsV2.with_prefix-3",
            v2(Prefix="test/foo/bar"),
            KeyCount=2,
            check=keys("test/foo/bar/123", "test/foo/bar/456"),
        ),
        ok(
            "ListObjectsV2.prefix_and_delimiter-1",
            v2(Delimiter="/"),
            KeyCount=2,
            check=prefixes("test/bar/", "test/foo/"),
        ),
        ok(
            "ListObjectsV2.prefix_and_delimiter-max",
            v2(Delimiter="/", MaxKeys=1),
            KeyCount=1,
            IsTruncated=True,
            MaxKeys=1,
            check=prefixes("test/bar/"),
        ),
        ok(
            "ListObjectsV2.prefix_and_delimiter-2",
            v2(Prefix="test/foo", Delimiter="/"),
            KeyCount=1,
            check=prefixes("test/foo/"),
        ),
        ok(
            "ListObjectsV2.prefix_and_delimiter-3",
            v2(Prefix="test/foo/bar", Delimiter="/"),
            KeyCount=1,
            check=prefixes("test/foo/bar/"),
            IsTruncated=False,
        ),
        ok("ListObjectsV2.start_after", v2(StartAfter="test/foo/123"), StartAfter="test/foo/123", KeyCount=2),
        error(
            "ListObjectsV2.bad_token",
            v2(ContinuationToken="bad"),
            400,
            "InvalidArgument",
            "The continuation token provided is incorrect",
            ArgumentName="continuation-token",
        ),
        ok(
            "ListObjectVersions.all",
            versions(),
            IsTruncated=False,
            KeyMarker="",
            VersionIdMarker="",
            MaxKeys=1000,
        ),
        ok(
            "ListObjectVersions.next_key_only",
            versions(KeyMarker="gone", MaxKeys=1),
            KeyMarker="gone",
            MaxKeys=1,
            NextKeyMarker="key",
            IsTruncated=True,
        ),
        ok(
            "ListObjectVersions.next_key_last",
            versions(KeyMarker="key", MaxKeys=1),
            IsTruncated=False,
            absent=["Versions"],
        ),
        error(
            "ListObjectVersions.next_version_only",
            versions(VersionIdMarker=f.old[0]),
            400,
            "InvalidArgument",
            "A version-id marker cannot be specified without a key marker.",
            ArgumentName="version-id-marker",
            ArgumentValue=f.old[0],
        ),
        ok(
            "ListObjectVersions.both_markers",
            versions(KeyMarker="key", VersionIdMarker=f.old[1]),
            check=lambda a: [v["VersionId"] for v in a["Versions"]] == [f.old[0]],
        ),
        ok(
            "ListObjectVersions.last",
            versions(KeyMarker="key", VersionIdMarker=f.old[0]),
            IsTruncated=False,
            absent=["Versions"],
        ),
        ok(
            "ListObjectVersions.prefix",
            versions(Prefix="ke"),
            check=lambda a: len(a["Versions"]) == 2,
            absent=["DeleteMarkers"],
        ),
        ok(
            "ListObjectVersions.marker",
            versions(Prefix="gone"),
            check=lambda a: a["DeleteMarkers"][0]["IsLatest"] is True,
        ),
        ok(
            "ListMultipartUploads.all",
            uploads(),
            IsTruncated=False,
            KeyMarker="",
            UploadIdMarker="",
            MaxUploads=1000,
            check=lambda a: [u["Key"] for u in a["Uploads"]] == ["multi"],
        ),
        ok("ListMultipartUploads.prefix", uploads(Prefix="none"), absent=["Uploads"], Prefix="none"),
        ok(
            "ListMultipartUploads.last_key", uploads(KeyMarker="multi"), absent=["Uploads"], KeyMarker="multi"
        ),
        ok(
            "ListParts",
            lambda s3: s3.list_parts(Bucket=BUCKET, Key="multi", UploadId=f.upload),
            MaxParts=1000,
            PartNumberMarker=0,
            NextPartNumberMarker=1,
            IsTruncated=False,
            StorageClass="STANDARD",
        ),
        ok(
            "ListParts.after_last",
            lambda s3: s3.list_parts(Bucket=BUCKET, Key="multi", UploadId=f.upload, PartNumberMarker=1),
            PartNumberMarker=1,
            IsTruncated=False,
            absent=["Parts"],
        ),
        ok(
            "ListBuckets.prefix",
            lambda s3: s3.list_buckets(Prefix="recorded-"),
            Prefix="recorded-",
            check=lambda a: [b["Name"] for b in a["Buckets"]] == [VERSIONED],
        ),
        ok("ListBuckets.prefix.case", lambda s3: s3.list_buckets(Prefix="RECORDED"), Buckets=[]),
        ok(
            "ListBuckets.max",
            lambda s3: s3.list_buckets(MaxBuckets=1),
            check=lambda a: bool(a["ContinuationToken"]),
        ),
        ok(
            "ListBuckets.arn",
            lambda s3: s3.list_buckets(Prefix=VERSIONED),
            check=lambda a: a["Buckets"][0]["BucketArn"] == f"arn:aws:s3:::{VERSIONED}",
        ),
        ok("ListBuckets.region", lambda s3: s3.list_buckets(BucketRegion="eu-west-1"), Buckets=[]),
        error(
            "ListBuckets.bad_region",
            lambda s3: s3.list_buckets(BucketRegion="eu-east-1"),
            400,
            "InvalidArgument",
            "Argument value eu-east-1 is not a valid AWS Region",
            ArgumentName="bucket-region",
        ),
    ]
    for name in ("list_objects_v2", "list_objects", "list_object_versions", "list_multipart_uploads"):
        cases += [
            error(
                f"encoding_type[{name}].{value}",
                lambda s3, n=name, v=value: getattr(s3, n)(Bucket=BUCKET, EncodingType=v),
                400,
                "InvalidArgument",
                "Invalid Encoding Method specified in Request",
                ArgumentName="encoding-type",
            )
            for value in ("value", "")
        ]
    return cases
