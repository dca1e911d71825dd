"""The model registry: groups of versioned model packages, and packages without a group."""

from __future__ import annotations

import json

from local_aws.context import Context
from local_aws.errors import AwsError, validation_error
from local_aws.gateway.json_service import Call, Document
from local_aws.sagemaker.operations import list_query, operation, request_tags, summaries
from local_aws.sagemaker.records import Records
from local_aws.settings import ACCOUNT_ID
from local_aws.state.resources import Resource

GROUP, PACKAGE = "model-package-group", "model-package"
GROUPS = Records(
    GROUP,
    "ModelPackageGroup",
    missing="ModelPackageGroup {arn} does not exist.",
    exists="Model Package Group already exists: {arn}",
    dated=False,
)
PACKAGES = Records(
    PACKAGE,
    "ModelPackage",
    missing="ModelPackage {arn} does not exist.",
    exists="Model Package already exists: {arn}",
    exists_code="ConflictException",
)
_CREATOR = {"IamIdentity": {"Arn": f"arn:aws:iam::{ACCOUNT_ID}:root", "PrincipalId": ACCOUNT_ID}}


# --- groups ---


@operation("CreateModelPackageGroup")
def create_group(call: Call) -> Document:
    """Create an empty group."""
    group = GROUPS.create_from(call, ModelPackageGroupStatus="Completed", CreatedBy=_CREATOR)
    return GROUPS.answer(group)


GROUPS.describes_and_lists("ModelPackageGroupSummaryList")


def _require_empty(call: Call, group: Resource) -> None:
    if call.context.store.count(PACKAGE, group.name, group.region):
        raise AwsError(
            "ConflictException",
            f"Model Package Group {group.arn} cannot be deleted because it contains Model Packages.",
        )


GROUPS.deletes(_require_empty)


@operation("PutModelPackageGroupPolicy")
def put_policy(call: Call) -> Document:
    """Store a resource policy, which must be JSON."""
    group = GROUPS.of(call)
    try:
        json.loads(call.params["ResourcePolicy"])
    except ValueError as error:
        raise validation_error(f"ResourcePolicy is not JSON: {error}") from error
    call.context.store.update(
        GROUP,
        call.region,
        group.name,
        lambda document: document.update(_Policy=call.params["ResourcePolicy"]),
    )
    return GROUPS.answer(group)


@operation("GetModelPackageGroupPolicy")
def get_policy(call: Call) -> Document:
    """Return the stored policy."""
    group = GROUPS.of(call)
    if "_Policy" not in group.document:
        raise validation_error(f"Cannot find resource policy for: {group.arn}")
    return {"ResourcePolicy": group.document["_Policy"]}


@operation("DeleteModelPackageGroupPolicy")
def delete_policy(call: Call) -> None:
    """Delete the policy."""
    group = GROUPS.of(call)
    call.context.store.update(GROUP, call.region, group.name, lambda document: document.pop("_Policy", None))


# --- packages ---


@operation("CreateModelPackage")
def create_package(call: Call) -> Document:
    """Create the next version of a group, or a package without a group."""
    params = call.params
    name, group = params.get("ModelPackageName"), params.get("ModelPackageGroupName")
    if (name is None) == (group is None):
        raise validation_error("Exactly one of ModelPackageName and ModelPackageGroupName must be given.")
    again = _by_token(call, params.get("ClientToken"))
    if again:
        return {"ModelPackageArn": again.arn}
    if "SourceAlgorithmSpecification" in params:
        raise validation_error(
            "SourceAlgorithmSpecification is for the Marketplace, which local_aws does not have."
        )
    if name is not None:
        return PACKAGES.answer(_create(call, name, {"_ModelPackageType": "Unversioned"}))
    group = GROUPS.of(call).name
    version = _next_version(call, group)
    members = {
        "ModelPackageGroupName": group,
        "ModelPackageVersion": version,
        "ModelApprovalStatus": params.get("ModelApprovalStatus", "PendingManualApproval"),
        "_ModelPackageType": "Versioned",
    }
    return PACKAGES.answer(_create(call, f"{group}/{version}", members, group))


def _create(call: Call, name: str, members: Document, group: str = "") -> Resource:
    members |= {
        "ModelPackageStatus": "Completed",
        "ModelPackageStatusDetails": {"ValidationStatuses": [], "ImageScanStatuses": []},
        "CreatedBy": _CREATOR,
        "_ClientToken": call.params.get("ClientToken"),
    }
    params = {member: value for member, value in call.params.items() if member != "ClientToken"}
    document = PACKAGES.draft(call.context, call.region, params, members, name)
    return PACKAGES.create(call.context, call.region, document, request_tags(call), name=name, parent=group)


def _next_version(call: Call, group: str) -> int:
    """Return the next version number; numbers of deleted packages are not reused."""
    highest = 0

    def change(document: Document) -> None:
        nonlocal highest
        document["_Versions"] = highest = document.get("_Versions", 0) + 1

    call.context.store.update(GROUP, call.region, group, change)
    return highest


def _by_token(call: Call, token: str | None) -> Resource | None:
    if token is None:
        return None
    query = list_query(call, PACKAGE, equal={"_ClientToken": token}, token="", limit=1, sort_by="created")
    found = call.context.store.page(query).resources
    return found[0] if found else None


@operation("DescribeModelPackage")
def describe_package(call: Call) -> Document:
    """Return the record."""
    return get_package(call.context, call.region, call.params["ModelPackageName"]).document


@operation("BatchDescribeModelPackage")
def batch_describe_packages(call: Call) -> Document:
    """Return several records; list unknown ones as errors."""
    found: Document = {}
    errors: Document = {}
    for arn in call.params["ModelPackageArnList"]:
        try:
            found[arn] = get_package(call.context, call.region, arn).document
        except AwsError as error:
            errors[arn] = {"ErrorCode": error.code, "ErrorResponse": error.message}
    return {"ModelPackageSummaries": found, "BatchDescribeModelPackageErrorMap": errors}


@operation("ListModelPackages")
def list_packages(call: Call) -> Document:
    """Filter by group, approval, name and time."""
    params = call.params
    equal: Document = {}
    if "ModelApprovalStatus" in params:
        equal["ModelApprovalStatus"] = params["ModelApprovalStatus"]
    group = params.get("ModelPackageGroupName", "")
    kind = params.get("ModelPackageType", "Versioned" if group else "Unversioned")
    if kind != "Both":
        equal["_ModelPackageType"] = kind
    if group:
        group = GROUPS.of(call).name
    return summaries(call, list_query(call, PACKAGE, parent=group, equal=equal), "ModelPackageSummaryList")


@operation("UpdateModelPackage")
def update_package(call: Call) -> Document:
    """Change approval, metadata and additional specifications."""
    params = call.params
    resource = get_package(call.context, call.region, params["ModelPackageArn"])

    def change(document: Document) -> None:
        for member in (
            "ModelApprovalStatus", "ApprovalDescription", "InferenceSpecification", "SourceUri", "ModelCard",
            "ModelLifeCycle", "ModelPackageRegistrationType",
        ):  # fmt: skip
            if member in params:
                document[member] = params[member]
        properties = document.setdefault("CustomerMetadataProperties", {})
        properties.update(params.get("CustomerMetadataProperties", {}))
        for key in params.get("CustomerMetadataPropertiesToRemove", []):
            properties.pop(key, None)
        added = params.get("AdditionalInferenceSpecificationsToAdd", [])
        if added:
            document["AdditionalInferenceSpecifications"] = (
                document.get("AdditionalInferenceSpecifications", []) + added
            )
        document["LastModifiedBy"] = _CREATOR

    call.context.store.update(PACKAGE, call.region, resource.name, change)
    return {"ModelPackageArn": resource.arn}


@operation("DeleteModelPackage")
def delete_package(call: Call) -> None:
    """Delete one version or a package without a group."""
    resource = get_package(call.context, call.region, call.params["ModelPackageName"])
    call.context.store.delete(PACKAGE, call.region, resource.name)


def get_package(context: Context, region: str, name_or_arn: str) -> Resource:
    """Read a package by ARN, `group/version` or name.

    Raises:
        AwsError: ValidationException for an unknown package.
    """
    return PACKAGES.get(context, region, name_or_arn)


def package_containers(context: Context, region: str, name_or_arn: str) -> list[Document]:
    """Return the containers of an approved package.

    Raises:
        AwsError: ValidationException, as on AWS, for a version that is not approved.
    """
    document = get_package(context, region, name_or_arn).document
    approval = document.get("ModelApprovalStatus", "Approved")
    if approval != "Approved":
        raise validation_error(
            f"Model package {document['ModelPackageArn']} is not approved (its ModelApprovalStatus is {approval})."
        )
    containers: list[Document] = document.get("InferenceSpecification", {}).get("Containers", [])
    if not containers:
        raise validation_error(f"Model package {document['ModelPackageArn']} has no InferenceSpecification.")
    return containers
