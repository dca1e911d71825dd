"""Find the policies attached to resources: buckets, queues, topics and KMS keys."""

from __future__ import annotations

import json
from typing import Any

from moto.kms.models import kms_backends
from moto.sns.models import sns_backends
from moto.sqs.models import sqs_backends

from local_aws.iam.policy import Document
from local_aws.s3.errors import S3Error
from local_aws.s3.public_access import is_blocked, is_public
from local_aws.s3.store import S3Store
from local_aws.settings import ACCOUNT_ID

RECOVERY = frozenset({"s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy"})
"""The account's root keeps these whatever a bucket's policy says, so that it cannot lock itself out."""


def policy_of(resource: str, store: S3Store) -> Document | None:
    """Return the policy attached to a resource by its ARN, or None."""
    parts = resource.split(":", 5)
    if len(parts) < 6:
        return None
    service, region, name = parts[2], parts[3], parts[5]
    if service == "s3":
        return _parsed(_bucket_policy(name.partition("/")[0], store))
    if service == "sqs":
        queue = sqs_backends[ACCOUNT_ID][region].queues.get(name) if region else None
        return _parsed(getattr(queue, "policy", None))
    if service == "sns":
        topic = sns_backends[ACCOUNT_ID][region].topics.get(resource) if region else None
        return _parsed(getattr(topic, "policy", None))
    if service == "kms" and region:
        key = kms_backends[ACCOUNT_ID][region].keys.get(name.rpartition("/")[2])
        return _parsed(getattr(key, "policy", None))
    return None


def is_restricted(resource: str, document: Document, store: S3Store) -> bool:
    """Return True if a bucket's RestrictPublicBuckets keeps strangers out although its policy is public."""
    _, _, name = resource.partition(":s3:::")
    bucket = name.partition("/")[0]
    return bool(bucket) and is_public(document) and is_blocked(store, bucket, "RestrictPublicBuckets")


def _bucket_policy(bucket: str, store: S3Store) -> Any:
    try:
        return store.buckets.configuration(bucket, "policy")
    except S3Error:
        return None


def _parsed(policy: Any) -> Document | None:
    if isinstance(policy, str):
        try:
            policy = json.loads(policy or "null")
        except ValueError:
            return None
    return policy if isinstance(policy, dict) and policy else None
