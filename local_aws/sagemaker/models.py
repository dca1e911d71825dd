"""Models: the containers that endpoints and transform jobs serve."""

from __future__ import annotations

from local_aws.errors import validation_error
from local_aws.execution.images import Contract
from local_aws.gateway.json_service import Call, Document
from local_aws.sagemaker.operations import operation
from local_aws.sagemaker.packages import package_containers
from local_aws.sagemaker.records import Records
from local_aws.sagemaker.s3_data import check_model

KIND = "model"
RECORDS = Records(
    KIND,
    "Model",
    missing='Could not find model "{arn}".',
    exists='Cannot create already existing model "{arn}".',
    dated=False,
)
ROLE = "_RoleArn"
"""The member of a resolved container that holds its model's role, or ""."""


@operation("CreateModel")
def create_model(call: Call) -> Document:
    """Check the containers and store the model."""
    params = call.params
    primary, containers = params.get("PrimaryContainer"), params.get("Containers")
    if (primary is None) == (not containers):
        raise validation_error(
            "CreateModel needs either PrimaryContainer or Containers, and not both of them."
        )
    for container in containers or [primary]:
        _check_container(call, container)
    isolated = params.get("EnableNetworkIsolation", False)
    return RECORDS.answer(RECORDS.create_from(call, EnableNetworkIsolation=isolated))


def _check_container(call: Call, container: Document) -> None:
    if "ModelPackageName" in container:
        inner = package_containers(call.context, call.region, container["ModelPackageName"])
    else:
        inner = [container]
    role = call.params.get("ExecutionRoleArn", "")
    for part in inner:
        uri = part.get("Image")
        if not uri:
            raise validation_error("A container needs an Image or a ModelPackageName.")
        call.context.images.require(uri, Contract.SERVER)
        source = part.get("ModelDataSource", {}).get("S3DataSource", {})
        url = part.get("ModelDataUrl") or source.get("S3Uri")
        if url:
            check_model(call.context, call.region, role, url)


RECORDS.describes_and_lists("Models")
RECORDS.deletes()  # endpoints that serve it keep running


def container_of(call: Call, name: str) -> Document:
    """Resolve the one container of a model, its package and its role.

    Raises:
        AwsError: ValidationException for an unknown model or one of several containers.
    """
    model = RECORDS.get(call.context, call.region, name).document
    parts = [model["PrimaryContainer"]] if "PrimaryContainer" in model else model["Containers"]
    if len(parts) != 1:
        raise validation_error(
            f"Model {name} is an inference pipeline of {len(parts)} containers; local_aws runs models of one "
            "container."
        )
    container: Document = {**parts[0], ROLE: model.get("ExecutionRoleArn", "")}
    if "ModelPackageName" not in container:
        return container
    inner = package_containers(call.context, call.region, container["ModelPackageName"])[0]
    environment = {**inner.get("Environment", {}), **container.get("Environment", {})}
    return {**inner, "Environment": environment, ROLE: container[ROLE]}
