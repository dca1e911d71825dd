"""Digests, tags, storage classes, locations, versions, policies, notifications."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.local_aws.s3.recorded.case import BUCKET, VERSIONED, Case, Fixture, error, ok


def writes(f: Fixture) -> list[Case]:
    """Digests, tags, storage classes, locations, versions, policies, notifications."""
    put: dict[str, Any] = {"Bucket": BUCKET, "Key": "written", "Body": b"data"}
    cases: list[Case] = []
    for name in ("CRC32", "CRC32C", "SHA1", "SHA256"):
        wrong = {"CRC32": "AAAAAA==", "CRC32C": "AAAAAA==", "SHA1": "A" * 27 + "=", "SHA256": "A" * 43 + "="}[
            name
        ]
        cases += [
            error(
                f"put_object_checksum[{name}].no-b64",
                lambda s3, n=name: s3.put_object(**put, **{f"Checksum{n}": "test"}),
                400,
                "InvalidRequest",
                f"Value for x-amz-checksum-{name.lower()} header is invalid.",
            ),
            error(
                f"put_object_checksum[{name}].value",
                lambda s3, n=name, w=wrong: s3.put_object(**put, **{f"Checksum{n}": w}),
                400,
                "BadDigest",
                f"The {name} you specified did not match the calculated checksum.",
            ),
        ]
    for number, digest in enumerate(
        ("__invalid__", "000", "not base64 encoded checksum", "MTIz", "dGVzdC1zdHJpbmc=")
    ):
        cases += [
            error(
                f"invalid_content_md5.{number}",
                lambda s3, d=digest: s3.put_object(**put, ContentMD5=d),
                400,
                "InvalidDigest",
                "The Content-MD5 you specified was invalid.",
                **{"Content-MD5": digest},
            ),
            error(
                f"invalid_content_md5.part.{number}",
                lambda s3, d=digest: s3.upload_part(
                    Bucket=BUCKET, Key="multi", UploadId=f.upload, PartNumber=1, Body=b"data", ContentMD5=d
                ),
                400,
                "InvalidDigest",
                "The Content-MD5 you specified was invalid.",
            ),
        ]
    cases.append(
        error(
            "invalid_content_md5.bad_digest",
            lambda s3: s3.put_object(**put, ContentMD5="CYketZBSTjX8czcs3cXVlg=="),
            400,
            "BadDigest",
            "The Content-MD5 you specified did not match what we received.",
        )
    )
    for prefix, call in (
        (
            "object",
            lambda s3, tags: s3.put_object_tagging(Bucket=BUCKET, Key="object", Tagging={"TagSet": tags}),
        ),
        ("bucket", lambda s3, tags: s3.put_bucket_tagging(Bucket=BUCKET, Tagging={"TagSet": tags})),
    ):
        system = (
            "Your TagKey cannot be prefixed with aws:"
            if prefix == "object"
            else "System tags cannot be added/updated by requester"
        )
        for name, tags, message in (
            (
                "duplicate-keys",
                [("Key1", "a"), ("Key1", "b")],
                "Cannot provide multiple Tags with the same key",
            ),
            ("invalid-key", [("Key1,Key2", "a")], "The TagKey you have provided is invalid"),
            ("invalid-value", [("Key1", "Val1,Val2")], "The TagValue you have provided is invalid"),
            ("aws-prefixed", [("aws:prefixed", "a")], system),
        ):
            listed = [{"Key": key, "Value": value} for key, value in tags]
            cases.append(
                error(
                    f"tagging.{prefix}.{name}",
                    lambda s3, c=call, t=listed: c(s3, t),
                    400,
                    "InvalidTag",
                    message,
                    TagKey=tags[0][0],
                )
            )
    for storage in ("OUTPOSTS", "NOTHING"):
        cases += [
            error(
                f"storage_class.{storage}",
                lambda s3, c=storage: s3.put_object(**put, StorageClass=c),
                400,
                "InvalidStorageClass",
                "The storage class you specified is not valid",
                StorageClassRequested=storage,
            ),
            error(
                f"storage_class.multipart.{storage}",
                lambda s3, c=storage: s3.create_multipart_upload(Bucket=BUCKET, Key="m", StorageClass=c),
                400,
                "InvalidStorageClass",
                "The storage class you specified is not valid",
            ),
        ]
    for storage in (
        "STANDARD",
        "STANDARD_IA",
        "ONEZONE_IA",
        "INTELLIGENT_TIERING",
        "GLACIER_IR",
        "REDUCED_REDUNDANCY",
    ):
        cases.append(
            ok(
                f"put_object_storage_class[{storage}]",
                lambda s3, c=storage: (
                    s3.put_object(**put, StorageClass=c),
                    s3.get_object(Bucket=BUCKET, Key="written"),
                )[1],
                **({} if storage == "STANDARD" else {"StorageClass": storage}),
            )
        )
    for storage in ("GLACIER", "DEEP_ARCHIVE"):
        cases.append(
            error(
                f"put_object_storage_class[{storage}]",
                lambda s3, c=storage: (
                    s3.put_object(**{**put, "Key": "cold"}, StorageClass=c),
                    s3.get_object(Bucket=BUCKET, Key="cold"),
                ),
                403,
                "InvalidObjectState",
                "The operation is not valid for the object's storage class",
                StorageClass=storage,
            )
        )

    def located(place: str) -> Callable[[Any], Any]:
        return lambda s3: s3.create_bucket(
            Bucket="located", CreateBucketConfiguration={"LocationConstraint": place}
        )

    policy = "Policies must be valid JSON and the first byte must be '{'"

    def configure(s3: Any, **rule: Any) -> Any:
        queue = {"QueueArn": "arn:aws:sqs:us-east-1:123456789012:q", "Events": ["s3:ObjectCreated:*"], **rule}
        return s3.put_bucket_notification_configuration(
            Bucket=BUCKET, NotificationConfiguration={"QueueConfigurations": [queue]}
        )

    return [
        *cases,
        error(
            "location.us-east-1",
            located("us-east-1"),
            400,
            "InvalidLocationConstraint",
            "The specified location-constraint is not valid",
            LocationConstraint="us-east-1",
        ),
        error(
            "uppercase_bucket",
            lambda s3: s3.create_bucket(Bucket="UpperCase"),
            400,
            "InvalidBucketName",
            "The specified bucket is not valid.",
            BucketName="UpperCase",
        ),
        ok("create_existing_us_east_1", lambda s3: s3.create_bucket(Bucket=BUCKET), Location=f"/{BUCKET}"),
        error(
            "bucket_not_empty",
            lambda s3: s3.delete_bucket(Bucket=BUCKET),
            409,
            "BucketNotEmpty",
            "The bucket you tried to delete is not empty",
            BucketName=BUCKET,
        ),
        error(
            "bucket_not_empty.versions",
            lambda s3: s3.delete_bucket(Bucket=VERSIONED),
            409,
            "BucketNotEmpty",
            "The bucket you tried to delete is not empty. You must delete all versions in the bucket.",
            BucketName=VERSIONED,
        ),
        error(
            "policy.empty",
            lambda s3: s3.put_bucket_policy(Bucket=BUCKET, Policy=""),
            400,
            "MalformedPolicy",
            policy,
        ),
        error(
            "policy.random",
            lambda s3: s3.put_bucket_policy(Bucket=BUCKET, Policy="invalid"),
            400,
            "MalformedPolicy",
            policy,
        ),
        error(
            "policy.json",
            lambda s3: s3.put_bucket_policy(Bucket=BUCKET, Policy="{}"),
            400,
            "MalformedPolicy",
            "Missing required field Statement",
        ),
        error(
            "versioning.status",
            lambda s3: s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "enabled"}),
            400,
            "MalformedXML",
        ),
        error(
            "versioning.empty",
            lambda s3: s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={}),
            400,
            "IllegalVersioningConfigurationException",
            "The Versioning element must be specified",
        ),
        error(
            "version.malformed.get",
            lambda s3: s3.get_object(Bucket=BUCKET, Key="object", VersionId="bad"),
            400,
            "InvalidArgument",
            "Invalid version id specified",
            ArgumentName="versionId",
            ArgumentValue="bad",
        ),
        error(
            "version.malformed.delete",
            lambda s3: s3.delete_object(Bucket=BUCKET, Key="object", VersionId="bad"),
            400,
            "InvalidArgument",
            "Invalid version id specified",
            ArgumentName="versionId",
            ArgumentValue="bad",
        ),
        error(
            "version.of_another_key",
            lambda s3: s3.get_object(Bucket=VERSIONED, Key="other", VersionId=f.old[0]),
            404,
            "NoSuchVersion",
            "The specified version does not exist.",
            Key="other",
            VersionId=f.old[0],
        ),
        error(
            "notification.filter_name",
            lambda s3: configure(s3, Filter={"Key": {"FilterRules": [{"Name": "INVALID", "Value": "a"}]}}),
            400,
            "InvalidArgument",
            "filter rule name must be either prefix or suffix",
            ArgumentName="FilterRule.Name",
            ArgumentValue="INVALID",
        ),
        error(
            "notification.no_values",
            lambda s3: configure(s3, Filter={"Key": {"FilterRules": [{}]}}),
            400,
            "MalformedXML",
        ),
        error(
            "notification.no_value",
            lambda s3: configure(s3, Filter={"Key": {"FilterRules": [{"Name": "prefix"}]}}),
            400,
            "MalformedXML",
        ),
        error(
            "notification.no_name",
            lambda s3: configure(s3, Filter={"Key": {"FilterRules": [{"Value": "a"}]}}),
            400,
            "MalformedXML",
        ),
    ]
