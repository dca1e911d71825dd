"""Every AWS call of the code has its right in a role, and no role has rights that nothing calls."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

import botocore.session
from botocore import xform_name

import ml_pipeline
from tests.infra.roles import AIRFLOW, API_SERVER, FORGET, granted

# Its calls are an administrator's, not Airflow's.
PACKAGE = Path(ml_pipeline.__file__).parent
FORGETTING = PACKAGE / "watching" / "forget"
# Its calls are MLflow's.
TRACKING = PACKAGE / "registry" / "tracking.py"


def test_airflow_role_covers_every_call_of_the_pipeline_and_no_other() -> None:
    used = calls_of(
        path for path in PACKAGE.rglob("*.py") if path != TRACKING and FORGETTING not in path.parents
    )
    assert {"sagemaker:CreateTrainingJob", "s3:PutObject", "cloudwatch:PutMetricAlarm"} <= used
    assert used - granted(AIRFLOW) == set()
    assert granted(AIRFLOW) - used == IMPLIED


def test_forgetting_has_every_right_that_its_calls_need() -> None:
    used = calls_of(FORGETTING.rglob("*.py"))
    assert {"s3:ListBucketVersions", "s3:PutObject"} <= used
    # Deleting a version has a right of its own; the other call is the store's, of the same name.
    assert used - granted(FORGET) == {"s3:DeleteObject", "sns:Publish"}


def test_the_api_server_may_call_what_the_console_calls() -> None:
    used = calls_of((PACKAGE / "console").rglob("*.py")) | {
        "cloudwatch:DescribeAlarms", "application-autoscaling:DescribeScalableTargets", "s3:PutObject",
        "logs:DescribeLogStreams", "logs:GetLogEvents",
    }  # fmt: skip
    assert used - granted(API_SERVER) == set()
    assert granted(API_SERVER) - used == {"kms:Decrypt", "kms:GenerateDataKey"}


# What AWS asks for as a part of another call.
IMPLIED = {
    "iam:PassRole",  # create a job, a model, an instance
    "sagemaker:AddTags", "ec2:CreateTags",  # create with tags
    "iam:CreateServiceLinkedRole",  # RegisterScalableTarget
    "s3:AbortMultipartUpload",  # an upload in parts that fails
    "kms:Decrypt", "kms:GenerateDataKey",  # objects, messages and topics under the project's key
    "kms:CreateGrant", "kms:DescribeKey",  # create a job, an endpoint with this key for its disks
}  # fmt: skip
# Operations whose permission has another name, or none ("": anyone may).
PERMISSIONS = {
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:HeadBucket": "s3:ListBucket",
    "s3:ListObjectVersions": "s3:ListBucketVersions",
    "s3:HeadObject": "s3:GetObject",
    "sqs:DeleteMessageBatch": "sqs:DeleteMessage",
    "s3:UploadPart": "s3:PutObject",
    "sagemaker-runtime:InvokeEndpoint": "sagemaker:InvokeEndpoint",
    "sts:GetCallerIdentity": "",
    "sagemaker:Search": "",  # re.search
    # Made by storage.yaml on AWS; the pipeline makes its bucket only on local_aws.
    "s3:CreateBucket": "",
}
SERVICES = (
    "sagemaker", "sagemaker-runtime", "s3", "sqs", "sns", "logs", "cloudwatch", "application-autoscaling", "ec2",
    "ssm", "sts",
)  # fmt: skip


def calls_of(sources: Iterable[Path]) -> set[str]:
    """The IAM actions behind every AWS operation that `sources` name.

    An operation is an attribute (`client.put_object`) or a string (`get_paginator("list_objects_v2")`) that is spelt
    as boto3 spells one. Of services that share a name, the one that the pipeline uses comes first in SERVICES.
    """
    session = botocore.session.get_session()
    known: dict[str, str] = {}
    for service in SERVICES:
        for operation in session.get_service_model(service).operation_names:
            known.setdefault(xform_name(operation), f"{service}:{operation}")
    spelt = {
        name for path in sources for node in ast.walk(ast.parse(path.read_text())) for name in _names(node)
    }
    found = {known[name] for name in spelt if name in known}
    return {PERMISSIONS.get(operation, operation) for operation in found} - {""}


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Attribute):  # also one that is handed on, to be called later
        return [node.attr]
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and "_" in node.value:
        return [node.value]
    return []
