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
NAME = "_Name"
"""The member of a resolved container of several that holds its name."""


@operation("CreateModel")
def create_model(call: Call) -> Document:
    """Check the containers and store the model."""
    params = call.params
    primary, containers = params.get("PrimaryContainer"), params.get("Containers")
    if (primary is None) == (not containers):
        raise validation_error(
            "CreateModel needs either PrimaryContainer or Containers, and not both of them."
        )
    _names(params)
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


def containers_of(call: Call, name: str) -> list[Document]:
    """Resolve the containers of a model, in the order in which they answer: their packages, names and role.

    Raises:
        AwsError: ValidationException for an unknown model, or one whose containers are invoked directly.
    """
    model = RECORDS.get(call.context, call.region, name).document
    names, role = _names(model), model.get("ExecutionRoleArn", "")
    found: list[Document] = []
    for number, part in enumerate(model.get("Containers") or [model["PrimaryContainer"]]):
        inner = [part]
        if "ModelPackageName" in part:
            inner = package_containers(call.context, call.region, part["ModelPackageName"])
        for position, container in enumerate(inner, 1):
            environment = {**container.get("Environment", {}), **part.get("Environment", {})}
            place = [names[number]] if names else []
            place += [f"container-{position}"] if len(inner) > 1 else []
            called = {NAME: "-".join(place)} if place else {}
            found.append({**container, "Environment": environment, ROLE: role, **called})
    return found


def _names(model: Document) -> list[str]:
    """Name the containers of an inference pipeline as AWS's logs do; none for a model of one.

    Raises:
        AwsError: ValidationException for a name given twice, or containers that are invoked directly.
    """
    containers = model.get("Containers", [])
    if model.get("InferenceExecutionConfig", {}).get("Mode") == "Direct":
        raise validation_error(
            "local_aws runs the containers of a model in series: leave InferenceExecutionConfig out, or set Mode to "
            "Serial. For a container of its own, create a model of its own."
        )
    names = [part.get("ContainerHostname", f"container-{at}") for at, part in enumerate(containers, 1)]
    if len(set(names)) < len(names):
        raise validation_error(f"ContainerHostname must be unique within a model: {', '.join(names)}.")
    return names if len(names) > 1 else []
