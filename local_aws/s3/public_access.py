"""S3 Block Public Access: which bucket policies are public, and which settings of a bucket forbid them.

After "Blocking public access to your Amazon S3 storage" of the S3 User Guide. A new bucket has all four settings, as on
AWS; those about ACLs have nothing to do where ACLs are disabled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from local_aws.s3 import xml
from local_aws.s3.errors import S3Error
from local_aws.s3.store import S3Store

KIND = "publicAccessBlock"
ROOT = "PublicAccessBlockConfiguration"
NEW_BUCKET = xml.document(
    ROOT,
    {
        "BlockPublicAcls": True,
        "IgnorePublicAcls": True,
        "BlockPublicPolicy": True,
        "RestrictPublicBuckets": True,
    },
).decode()
_NARROWING_KEYS = frozenset(
    (
        "aws:sourceip", "aws:sourcearn", "aws:sourcevpc", "aws:sourcevpce", "aws:sourceowner", "aws:sourceaccount",
        "aws:userid", "aws:principalorgid", "aws:principalarn", "aws:principalaccount", "s3:dataaccesspointarn",
        "s3:dataaccesspointaccount", "s3:x-amz-server-side-encryption-aws-kms-key-id",
    )
)  # fmt: skip
_NARROWING_OPERATORS = ("StringEquals", "StringLike", "ArnEquals", "ArnLike", "IpAddress")


def is_blocked(store: S3Store, bucket: str, setting: str) -> bool:
    """Return True if a bucket has a setting such as `BlockPublicPolicy`; False for a bucket that does not exist."""
    try:
        text = store.buckets.configuration(bucket, KIND)
    except S3Error:
        return False
    return bool(text) and str(xml.parse(text.encode(), ROOT).get(setting, "")).lower() == "true"


def is_public(policy: Mapping[str, Any]) -> bool:
    """Return True if a bucket policy allows something to anyone, without a condition that says to whom."""
    return any(
        statement.get("Effect") == "Allow"
        and ("NotPrincipal" in statement or _is_anyone(statement.get("Principal")))
        and not _narrows(statement.get("Condition"))
        for statement in _listed(policy.get("Statement"))
        if isinstance(statement, Mapping)
    )


def _is_anyone(principal: Any) -> bool:
    if isinstance(principal, Mapping):
        return any("*" in str(name) for names in principal.values() for name in _listed(names))
    return principal == "*"


def _narrows(conditions: Any) -> bool:
    """Return True if a condition compares one of the caller's properties with values that have no wildcard."""
    return isinstance(conditions, Mapping) and any(
        key.lower() in _NARROWING_KEYS and all(_is_fixed(value) for value in _listed(values))
        for operator, block in conditions.items()
        if operator in _NARROWING_OPERATORS and isinstance(block, Mapping)
        for key, values in block.items()
    )


def _is_fixed(value: Any) -> bool:
    text = str(value)
    return (
        bool(text)
        and not any(sign in text for sign in ("*", "?", "${"))
        and text not in ("0.0.0.0/0", "::/0")
    )


def _listed(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
