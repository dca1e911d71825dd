"""Conditional reads, copies and writes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.local_aws.s3.recorded.case import BUCKET, ETAG, FUTURE, PAST, UNMET, Case, Fixture, error, ok


def conditions(f: Fixture) -> list[Case]:
    """Conditional reads, copies and writes."""
    cases: list[Case] = []
    get: dict[str, Any] = {"Bucket": BUCKET, "Key": "object"}
    for name in ("get_object", "head_object"):
        is_head = name == "head_object"
        unmet = ("412", "Precondition Failed", {}) if is_head else ("PreconditionFailed", UNMET, None)

        def failing(condition: str, unmet: Any = unmet) -> tuple[str, str, dict[str, str]]:
            return unmet[0], unmet[1], ({"Condition": condition} if unmet[2] is None else {})

        for step, header, value, condition in (
            ("if-match", "IfMatch", '"wrong"', "If-Match"),
            ("if-unmodified-since", "IfUnmodifiedSince", PAST, "If-Unmodified-Since"),
        ):
            code, message, members = failing(condition)
            cases.append(
                error(
                    f"preconditions[{name}].{step}",
                    lambda s3, n=name, h=header, v=value: getattr(s3, n)(**get, **{h: v}),
                    412,
                    code,
                    message,
                    **members,
                )
            )
        for step, header, value in (
            ("if-none-match", "IfNoneMatch", ETAG),
            ("etag-missing-quotes", "IfNoneMatch", ETAG.strip('"')),
            ("if-modified-since", "IfModifiedSince", datetime.now(UTC) + timedelta(seconds=-0)),
        ):
            cases.append(
                error(
                    f"preconditions[{name}].{step}",
                    lambda s3, n=name, h=header, v=value: getattr(s3, n)(**get, **{h: v}),
                    304,
                    "304",
                    "Not Modified",
                )
            )
        for step, header, value in (
            ("success", "IfMatch", ETAG),
            ("success-2", "IfNoneMatch", '"wrong"'),
            ("future", "IfModifiedSince", FUTURE),
            ("success-3", "IfUnmodifiedSince", FUTURE),
            ("success-4", "IfModifiedSince", PAST),
        ):
            cases.append(
                ok(
                    f"preconditions[{name}].{step}",
                    lambda s3, n=name, h=header, v=value: getattr(s3, n)(**get, **{h: v}),
                    ETag=ETAG,
                )
            )
    copy: dict[str, Any] = {"Bucket": BUCKET, "Key": "copied", "CopySource": f"{BUCKET}/object"}
    for step, header, value, condition in (
        ("if-match", "CopySourceIfMatch", '"wrong"', "x-amz-copy-source-If-Match"),
        ("if-unmodified-since", "CopySourceIfUnmodifiedSince", PAST, "x-amz-copy-source-If-Unmodified-Since"),
        ("if-none-match", "CopySourceIfNoneMatch", ETAG, "x-amz-copy-source-If-None-Match"),
        ("etag-missing-quotes", "CopySourceIfNoneMatch", ETAG.strip('"'), "x-amz-copy-source-If-None-Match"),
        (
            "if-modified-since",
            "CopySourceIfModifiedSince",
            datetime.now(UTC),
            "x-amz-copy-source-If-Modified-Since",
        ),
    ):
        cases.append(
            error(
                f"copy_preconditions.{step}",
                lambda s3, h=header, v=value: s3.copy_object(**copy, **{h: v}),
                412,
                "PreconditionFailed",
                UNMET,
                Condition=condition,
            )
        )
    illegal = (
        "This copy request is illegal because it is trying to copy an object to itself without changing the object's "
        "metadata, storage class, website redirect location or encryption attributes."
    )
    itself: dict[str, Any] = {"Bucket": BUCKET, "Key": "object", "CopySource": f"{BUCKET}/object"}
    put: dict[str, Any] = {"Bucket": BUCKET, "Key": "object", "Body": b"data"}
    refused = "A header you provided implies functionality that is not implemented"
    return [
        *cases,
        ok(
            "copy_preconditions.success",
            lambda s3: s3.copy_object(**copy, CopySourceIfMatch=ETAG),
            check=lambda a: a["CopyObjectResult"]["ETag"] == ETAG,
        ),
        ok("copy_preconditions.future", lambda s3: s3.copy_object(**copy, CopySourceIfModifiedSince=FUTURE)),
        error("copy_in_place", lambda s3: s3.copy_object(**itself), 400, "InvalidRequest", illegal),
        error(
            "copy_in_place.directive",
            lambda s3: s3.copy_object(**itself, Metadata={"a": "b"}),
            400,
            "InvalidRequest",
            illegal,
        ),
        ok(
            "copy_in_place.replace",
            lambda s3: s3.copy_object(**itself, Metadata={"a": "b"}, MetadataDirective="REPLACE"),
        ),
        error(
            "if_none_match",
            lambda s3: s3.put_object(**put, IfNoneMatch="*"),
            412,
            "PreconditionFailed",
            UNMET,
            Condition="If-None-Match",
        ),
        error(
            "if_none_match.value",
            lambda s3: s3.put_object(**put, IfNoneMatch=ETAG),
            501,
            "NotImplemented",
            refused,
            Header="If-None-Match",
        ),
        error(
            "if_match.wrong",
            lambda s3: s3.put_object(**put, IfMatch='"wrong"'),
            412,
            "PreconditionFailed",
            UNMET,
            Condition="If-Match",
        ),
        error(
            "if_match.no_key",
            lambda s3: s3.put_object(**{**put, "Key": "not-there"}, IfMatch=ETAG),
            404,
            "NoSuchKey",
            "The specified key does not exist.",
            Key="not-there",
        ),
        error(
            "if_match.star",
            lambda s3: s3.put_object(**put, IfMatch="*"),
            501,
            "NotImplemented",
            refused,
            Header="If-Match",
        ),
        error(
            "if_match.both",
            lambda s3: s3.put_object(**put, IfMatch=ETAG, IfNoneMatch="*"),
            501,
            "NotImplemented",
            refused,
            Header="If-Match,If-None-Match",
        ),
        ok("if_match.right", lambda s3: s3.put_object(**put, IfMatch=ETAG), ETag=ETAG),
        error(
            "copy.if_none_match",
            lambda s3: s3.copy_object(**copy, IfNoneMatch="*"),
            412,
            "PreconditionFailed",
            UNMET,
            Condition="If-None-Match",
        ),
        error(
            "copy.if_match",
            lambda s3: s3.copy_object(**copy, IfMatch='"wrong"'),
            412,
            "PreconditionFailed",
            UNMET,
            Condition="If-Match",
        ),
        error(
            "copy.if_match.no_key",
            lambda s3: s3.copy_object(**{**copy, "Key": "not-there"}, IfMatch=ETAG),
            404,
            "NoSuchKey",
            "The specified key does not exist.",
            Key="not-there",
        ),
        error(
            "copy.if_none_match.value",
            lambda s3: s3.copy_object(**copy, IfNoneMatch=ETAG),
            501,
            "NotImplemented",
            refused,
            Header="If-None-Match",
        ),
        error(
            "copy.if_match.star",
            lambda s3: s3.copy_object(**copy, IfMatch="*"),
            501,
            "NotImplemented",
            refused,
            Header="If-Match",
        ),
        error(
            "copy.both",
            lambda s3: s3.copy_object(**copy, IfMatch=ETAG, IfNoneMatch="*"),
            501,
            "NotImplemented",
            refused,
            Header="If-Match,If-None-Match",
        ),
    ]
