"""The model registry: one package group per data set, whose newest approved package is the champion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ml_pipeline.aws.clients import Client
from ml_pipeline.aws.jobs import ensure, is_missing
from ml_pipeline.aws.s3 import split_uri
from ml_pipeline.requests import names, preferences
from ml_pipeline.requests.types import Document

CONTENT_TYPES = ["image/jpeg", "image/png", "image/webp", "application/x-image", "application/json"]
RESPONSE_TYPES = ["application/json"]
# Start of the ApprovalDescription of a package that a deployment rejected; a person writes something else.
_NOT_IN_SERVICE = "Not in service: "


class ModelOverwritten(ValueError):
    """The object of a registered model is not the one that was evaluated."""


@dataclass(frozen=True)
class Package:
    """A registered model.

    Attributes:
        status: "Approved", "PendingManualApproval" or "Rejected".
        model_uri: model.tar.gz.
        image: Serving image.
        metadata: CustomerMetadataProperties: dataset_version, evaluation_uri, model_etag, ...
        approval: Who or what decided on the status.
    """

    arn: str
    status: str
    model_uri: str
    image: str
    metadata: Mapping[str, str]
    approval: str = ""

    @property
    def deployable(self) -> bool:
        """True if it is approved, or only a deployment took it out of service: no person rejected it."""
        return self.status == "Approved" or (
            self.status == "Rejected" and self.approval.startswith(_NOT_IN_SERVICE)
        )


def package_group(name: str, description: str) -> Document:
    """Build the request of CreateModelPackageGroup."""
    tag = dict(zip(("Key", "Value"), names.PROJECT_TAG, strict=True))
    return {"ModelPackageGroupName": name, "ModelPackageGroupDescription": description, "Tags": [tag]}


def model_package(
    group: str,
    model_uri: str,
    image: str,
    instance_type: str,
    evaluation_uri: str,
    metadata: Mapping[str, str],
    approved: bool,
) -> Document:
    """Build the request of CreateModelPackage; with its ClientToken, repeating the call is harmless."""
    return {
        "ModelPackageGroupName": group,
        "ModelPackageDescription": f"accuracy {metadata.get('accuracy', 'unknown')} on the test split",
        "InferenceSpecification": {
            "Containers": [{"Image": image, "ModelDataUrl": model_uri}],
            "SupportedContentTypes": CONTENT_TYPES,
            "SupportedResponseMIMETypes": RESPONSE_TYPES,
            "SupportedRealtimeInferenceInstanceTypes": list(preferences.split(instance_type)),
            "SupportedTransformInstanceTypes": list(preferences.split(instance_type)),
        },
        "ModelMetrics": {
            "ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": evaluation_uri}}
        },
        "CustomerMetadataProperties": dict(metadata),
        "ModelApprovalStatus": "Approved" if approved else "PendingManualApproval",
        "ClientToken": f"package-{names.fingerprint(group, model_uri)}",
    }


def ensure_group(client: Client, name: str, description: str) -> None:
    """Create the package group unless it exists."""
    ensure(
        lambda: client.describe_model_package_group(ModelPackageGroupName=name),
        lambda: client.create_model_package_group(**package_group(name, description)),
    )


def champion(client: Client, group: str) -> Package | None:
    """Return the newest approved package of `group`, or None."""
    return next(iter(packages(client, group, status="Approved", limit=1)), None)


def find(client: Client, group: str, model_uri: str) -> Package | None:
    """Return the package of `model_uri` among the newest 50 of `group`."""
    return next((item for item in packages(client, group) if item.model_uri == model_uri), None)


def object_version(s3: Client, model_uri: str) -> dict[str, str]:
    """Return the metadata that name the object at `model_uri` as it is now; {} where there is none.

    SageMaker reads the newest object of the key: every job may write below `jobs/`.
    """
    from botocore.exceptions import ClientError

    bucket, key = split_uri(model_uri)
    try:
        found = s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return {}
        raise
    named = {"model_etag": found["ETag"].strip('"'), "model_version_id": found.get("VersionId")}
    return {name: value for name, value in named.items() if value}


def refuse_overwritten(s3: Client, package: Package) -> None:
    """Check that a model is the one that was evaluated; versions of earlier releases name no object.

    Raises:
        ModelOverwritten: Another object took its place.
    """
    registered = package.metadata.get("model_etag")
    now = object_version(s3, package.model_uri) if registered else {}
    if now and now["model_etag"] != registered:
        version = package.metadata.get("model_version_id")
        raise ModelOverwritten(
            f"{package.model_uri} was overwritten after it was registered as {package.arn}: "
            + (f"delete the newer versions of the object, down to {version}" if version else "train again")
            + ", or deploy another version"
        )


def packages(client: Client, group: str, status: str | None = None, limit: int = 50) -> list[Package]:
    """Return the newest packages of `group`; none if there is no such group."""
    from botocore.exceptions import ClientError

    arguments: Document = {
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


def reject(client: Client, arn: str, reason: str) -> None:
    """Reject a package that could not be brought into service, so that it is not the champion."""
    # AWS takes 1024 characters without line breaks; the error of a container may have some.
    description = f"{_NOT_IN_SERVICE}{' '.join(reason.split())}"[:1024]
    client.update_model_package(
        ModelPackageArn=arn, ModelApprovalStatus="Rejected", ApprovalDescription=description
    )


def reinstate(client: Client, arn: str) -> None:
    """Approve a package that `reject` rejected: it is in service after all. A person's rejection stays."""
    package = client.describe_model_package(ModelPackageName=arn)
    ours = package.get("ApprovalDescription", "").startswith(_NOT_IN_SERVICE)
    if ours and package["ModelApprovalStatus"] == "Rejected":
        client.update_model_package(
            ModelPackageArn=arn, ModelApprovalStatus="Approved", ApprovalDescription="In service after all"
        )


def note(client: Client, arn: str, **metadata: str) -> None:
    """Add to a package's metadata, which outlives the XComs of a task."""
    client.update_model_package(ModelPackageArn=arn, CustomerMetadataProperties=metadata)


def describe(client: Client, arn: str) -> Package:
    """Return the package with this ARN."""
    description = client.describe_model_package(ModelPackageName=arn)
    container = description["InferenceSpecification"]["Containers"][0]
    return Package(
        arn=description["ModelPackageArn"],
        status=description["ModelApprovalStatus"],
        model_uri=container["ModelDataUrl"],
        image=container["Image"],
        metadata=description.get("CustomerMetadataProperties", {}),
        approval=description.get("ApprovalDescription", ""),
    )
