"""Missing buckets, keys and configurations, and defaults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.local_aws.s3.recorded.case import BUCKET, VERSIONED, Case, error, ok


def absent() -> list[Case]:
    """Missing buckets, keys and configurations."""
    calls: dict[str, Callable[[Any], Any]] = {
        "get_object": lambda s3: s3.get_object(Bucket="not-there", Key="k"),
        "put_object": lambda s3: s3.put_object(Bucket="not-there", Key="k"),
        "delete_bucket": lambda s3: s3.delete_bucket(Bucket="not-there"),
        "get_bucket_notification": lambda s3: s3.get_bucket_notification_configuration(Bucket="not-there"),
        "lifecycle": lambda s3: s3.get_bucket_lifecycle_configuration(Bucket="not-there"),
        "get_bucket_location": lambda s3: s3.get_bucket_location(Bucket="not-there"),
        "delete_objects": lambda s3: s3.delete_objects(
            Bucket="not-there", Delete={"Objects": [{"Key": "k"}]}
        ),
        "list_objects": lambda s3: s3.list_objects(Bucket="not-there"),
        "list_objects_v2": lambda s3: s3.list_objects_v2(Bucket="not-there"),
        "get_bucket_versioning": lambda s3: s3.get_bucket_versioning(Bucket="not-there"),
        "get_bucket_tagging": lambda s3: s3.get_bucket_tagging(Bucket="not-there"),
        "get_bucket_policy": lambda s3: s3.get_bucket_policy(Bucket="not-there"),
        "get_bucket_encryption": lambda s3: s3.get_bucket_encryption(Bucket="not-there"),
        "get_bucket_acl": lambda s3: s3.get_bucket_acl(Bucket="not-there"),
        "create_multipart_upload": lambda s3: s3.create_multipart_upload(Bucket="not-there", Key="k"),
    }
    cases = [
        error(
            f"no_such_bucket.{name}",
            call,
            404,
            "NoSuchBucket",
            "The specified bucket does not exist",
            BucketName="not-there",
        )
        for name, call in calls.items()
    ]
    missing = {"Bucket": BUCKET, "Key": "not-there"}
    no_key = "The specified key does not exist."
    return [
        *cases,
        error("bucket_exists.head", lambda s3: s3.head_bucket(Bucket="not-there"), 404, "404", "Not Found"),
        error("head_object_404", lambda s3: s3.head_object(**missing), 404, "404", "Not Found"),
        error(
            "get_object.key", lambda s3: s3.get_object(**missing), 404, "NoSuchKey", no_key, Key="not-there"
        ),
        error(
            "range_key_not_exists",
            lambda s3: s3.get_object(**missing, Range="bytes=0-1"),
            404,
            "NoSuchKey",
            no_key,
        ),
        error(
            "get_object_tagging.key", lambda s3: s3.get_object_tagging(**missing), 404, "NoSuchKey", no_key
        ),
        error(
            "get_object_attributes.key",
            lambda s3: s3.get_object_attributes(**missing, ObjectAttributes=["ETag"]),
            404,
            "NoSuchKey",
            no_key,
        ),
        error(
            "copy_object.key",
            lambda s3: s3.copy_object(Bucket=BUCKET, Key="c", CopySource=f"{BUCKET}/not-there"),
            404,
            "NoSuchKey",
            no_key,
            Key="not-there",
        ),
        error(
            "uppercase_key", lambda s3: s3.get_object(Bucket=BUCKET, Key="OBJECT"), 404, "NoSuchKey", no_key
        ),
        error(
            "get_object_after_delete",
            lambda s3: s3.get_object(Bucket=VERSIONED, Key="gone"),
            404,
            "NoSuchKey",
            no_key,
        ),
        error(
            "get_object_attributes.deleted",
            lambda s3: s3.get_object_attributes(Bucket=VERSIONED, Key="gone", ObjectAttributes=["ETag"]),
            404,
            "NoSuchKey",
            no_key,
        ),
        error(
            "default_policy",
            lambda s3: s3.get_bucket_policy(Bucket=BUCKET),
            404,
            "NoSuchBucketPolicy",
            "The bucket policy does not exist",
            BucketName=BUCKET,
        ),
        error(
            "default_tags",
            lambda s3: s3.get_bucket_tagging(Bucket=BUCKET),
            404,
            "NoSuchTagSet",
            "The TagSet does not exist",
            BucketName=BUCKET,
        ),
        error(
            "default_lifecycle",
            lambda s3: s3.get_bucket_lifecycle_configuration(Bucket=BUCKET),
            404,
            "NoSuchLifecycleConfiguration",
            "The lifecycle configuration does not exist",
            BucketName=BUCKET,
        ),
        error(
            "default_cors",
            lambda s3: s3.get_bucket_cors(Bucket=BUCKET),
            404,
            "NoSuchCORSConfiguration",
            "The CORS configuration does not exist",
            BucketName=BUCKET,
        ),
        ok(
            "delete_non_existing",
            lambda s3: s3.delete_objects(
                Bucket=BUCKET, Delete={"Objects": [{"Key": "no-1"}, {"Key": "no-2"}]}
            ),
            check=lambda a: sorted(d["Key"] for d in a["Deleted"]) == ["no-1", "no-2"],
            absent=["Errors"],
        ),
        ok(
            "delete_quiet",
            lambda s3: s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "no-1"}], "Quiet": True}),
            absent=["Deleted", "Errors"],
        ),
        ok(
            "default_encryption",
            lambda s3: s3.get_bucket_encryption(Bucket=BUCKET),
            check=lambda a: (
                a["ServerSideEncryptionConfiguration"]["Rules"][0]["ApplyServerSideEncryptionByDefault"]
                == {"SSEAlgorithm": "AES256"}
            ),
        ),
        ok("default_versioning", lambda s3: s3.get_bucket_versioning(Bucket=BUCKET), absent=["Status"]),
        ok("default_location", lambda s3: s3.get_bucket_location(Bucket=BUCKET), LocationConstraint=None),
        ok(
            "default_notification",
            lambda s3: s3.get_bucket_notification_configuration(Bucket=BUCKET),
            absent=["QueueConfigurations"],
        ),
    ]
