"""The endpoints that can be watched: what serves there, of which data set, and whether its photos are captured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from ml_pipeline.aws.clients import Client
from ml_pipeline.registry import packages as registry
from ml_pipeline.registry.packages import Package
from ml_pipeline.requests import preferences
from ml_pipeline.requests.endpoint import ENDPOINT_TAG
from ml_pipeline.requests.names import is_ours


@dataclass(frozen=True)
class Watched:
    """An endpoint of this project.

    Attributes:
        dataset: Name of its data set; None where no package of the registry holds its model.
        captures_uri: Prefix under which SageMaker writes what it captured, with a trailing slash; None: capture is off.
        since: When the present configuration was created.
    """

    name: str
    status: str
    model_uri: str
    package: Package | None
    dataset: str | None
    captures_uri: str | None
    instance_type: str | None
    since: datetime

    @property
    def trouble(self) -> str | None:
        """The reason that it cannot be watched, in a line that names the fix; None: it can."""
        if self.status not in ("InService", "Updating", "SystemUpdating", "RollingBack"):
            return f"it is {self.status}: nothing serves there"
        if self.captures_uri is None:
            return "its photos are not captured: deploy it again with capture_percent and capture_days"
        if self.package is None:
            return "no model package of the registry holds its model: deploy it with train_and_deploy"
        return None


def watched(sagemaker: Client, wanted: str = "") -> Iterator[Watched]:
    """The project's endpoints, or the one called `wanted`; one that is deleted meanwhile is passed over."""
    from botocore.exceptions import ClientError

    for name, arn in [(wanted, "")] if wanted else list(_listed(sagemaker)):
        try:
            if wanted or _is_ours(sagemaker, arn):
                yield describe(sagemaker, name)
        except ClientError as error:
            if "Could not find" not in str(error) and "does not exist" not in str(error):
                raise


def describe(sagemaker: Client, name: str) -> Watched:
    """One endpoint.

    Raises:
        ClientError: There is none of this name.
    """
    endpoint = sagemaker.describe_endpoint(EndpointName=name)
    config = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
    variant = config["ProductionVariants"][0]
    model = sagemaker.describe_model(ModelName=variant["ModelName"])
    uri = model["PrimaryContainer"]["ModelDataUrl"]
    group, package = _package(sagemaker, uri)
    capture = config.get("DataCaptureConfig") or {}
    folder = capture.get("DestinationS3Uri", "").rstrip("/")
    return Watched(
        name=name,
        status=endpoint["EndpointStatus"],
        model_uri=uri,
        package=package,
        dataset=group,
        captures_uri=f"{folder}/{name}/{variant['VariantName']}/" if capture.get("EnableCapture") else None,
        instance_type=preferences.in_variant(variant),
        since=config["CreationTime"],
    )


def _listed(sagemaker: Client) -> Iterator[tuple[str, str]]:
    for page in sagemaker.get_paginator("list_endpoints").paginate():
        for endpoint in page["Endpoints"]:
            yield endpoint["EndpointName"], endpoint["EndpointArn"]


def _is_ours(sagemaker: Client, arn: str) -> bool:
    tags = sagemaker.list_tags(ResourceArn=arn)["Tags"]
    return is_ours(tags) and any(tag["Key"] == ENDPOINT_TAG for tag in tags)


def _package(sagemaker: Client, model_uri: str) -> tuple[str | None, Package | None]:
    for page in sagemaker.get_paginator("list_model_package_groups").paginate():
        for group in page["ModelPackageGroupSummaryList"]:
            name = group["ModelPackageGroupName"]
            if package := registry.find(sagemaker, name, model_uri):
                return name, package
    return None, None
