"""The model registry: one package group per data set, its newest approved package is the champion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ml_pipeline.aws.jobs import is_missing
from ml_pipeline.requests import names

CONTENT_TYPES = ["image/jpeg", "image/png", "image/webp", "application/x-image", "application/json"]
RESPONSE_TYPES = ["application/json"]
# Begins the ApprovalDescription of what a deployment rejected; a person writes something else.
_NOT_IN_SERVICE = "Not in service: "


@dataclass(frozen=True)
class Package:
    """A registered model.

    Attributes:
        status: "Approved", "PendingManualApproval" or "Rejected".
        model_uri: model.tar.gz.
        image: Serving image.
        metadata: CustomerMetadataProperties: dataset_version, evaluation_uri, model_sha256, ...
    """

    arn: str
    status: str
    model_uri: str
    image: str
    metadata: Mapping[str, str]


def package_group(name: str, description: str) -> dict[str, Any]:
    """The request of CreateModelPackageGroup."""
    return {"ModelPackageGroupName": name, "ModelPackageGroupDescription": description}


def model_package(
    group: str,
    model_uri: str,
    image: str,
    instance_type: str,
    evaluation_uri: str,
    metadata: Mapping[str, str],
    approved: bool,
) -> dict[str, Any]:
    """The request of CreateModelPackage; its ClientToken makes a second one of the same content harmless."""
    return {
        "ModelPackageGroupName": group,
        "ModelPackageDescription": f"accuracy {metadata.get('accuracy', 'unknown')} on the test split",
        "InferenceSpecification": {
            "Containers": [{"Image": image, "ModelDataUrl": model_uri}],
            "SupportedContentTypes": CONTENT_TYPES,
            "SupportedResponseMIMETypes": RESPONSE_TYPES,
            "SupportedRealtimeInferenceInstanceTypes": [instance_type],
            "SupportedTransformInstanceTypes": [instance_type],
        },
        "ModelMetrics": {
            "ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": evaluation_uri}}
        },
        "CustomerMetadataProperties": dict(metadata),
        "ModelApprovalStatus": "Approved" if approved else "PendingManualApproval",
        "ClientToken": f"package-{names.fingerprint(group, model_uri)}",
    }


def ensure_group(client: Any, name: str, description: str) -> None:
    """Create the package group unless it exists."""
    from botocore.exceptions import ClientError

    try:
        client.describe_model_package_group(ModelPackageGroupName=name)
    except ClientError as error:
        if not is_missing(error):
            raise
        client.create_model_package_group(**package_group(name, description))


def champion(client: Any, group: str) -> Package | None:
    """The newest approved package of `group`, or None."""
    return next(iter(packages(client, group, status="Approved", limit=1)), None)


def find(client: Any, group: str, model_uri: str) -> Package | None:
    """The package that holds `model_uri`, among the newest 50 of `group`."""
    return next((item for item in packages(client, group) if item.model_uri == model_uri), None)


def packages(client: Any, group: str, status: str | None = None, limit: int = 50) -> list[Package]:
    """The newest packages of `group`; none if there is no such group."""
    from botocore.exceptions import ClientError

    arguments: dict[str, Any] = {
        "ModelPackageGroupName": group,
        "SortBy": "CreationTime",
        "SortOrder": "Descending",
        "MaxResults": limit,
    }
    if status:
        arguments["ModelApprovalStatus"] = status
    try:
        summaries = client.list_model_packages(**arguments)["ModelPackageSummaryList"]
    except ClientError as error:
        if is_missing(error):
            return []
        raise
    return [describe(client, summary["ModelPackageArn"]) for summary in summaries]


def reject(client: Any, arn: str, reason: str) -> None:
    """Mark a package that could not be brought into service as rejected, so that it is no champion."""
    # AWS takes 1024 characters without line breaks; the error of a container may have some.
    description = f"{_NOT_IN_SERVICE}{' '.join(reason.split())}"[:1024]
    client.update_model_package(
        ModelPackageArn=arn, ModelApprovalStatus="Rejected", ApprovalDescription=description
    )


def reinstate(client: Any, arn: str) -> None:
    """Approve a package again that `reject` marked: it is in service after all. A person's rejection stays."""
    package = client.describe_model_package(ModelPackageName=arn)
    ours = package.get("ApprovalDescription", "").startswith(_NOT_IN_SERVICE)
    if ours and package["ModelApprovalStatus"] == "Rejected":
        client.update_model_package(
            ModelPackageArn=arn, ModelApprovalStatus="Approved", ApprovalDescription="In service after all"
        )


def note(client: Any, arn: str, **metadata: str) -> None:
    """Add to a package's metadata: there it outlives the XComs of the task that knew it."""
    client.update_model_package(ModelPackageArn=arn, CustomerMetadataProperties=metadata)


def describe(client: Any, arn: str) -> Package:
    """The package with this ARN."""
    description = client.describe_model_package(ModelPackageName=arn)
    container = description["InferenceSpecification"]["Containers"][0]
    return Package(
        arn=description["ModelPackageArn"],
        status=description["ModelApprovalStatus"],
        model_uri=container["ModelDataUrl"],
        image=container["Image"],
        metadata=description.get("CustomerMetadataProperties", {}),
    )
