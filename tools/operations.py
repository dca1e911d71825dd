"""The AWS operations of local_aws by treatment, read from its registries and from botocore's and moto's models."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import botocore.session

# Operations that start, stop or ask a process; the others are kept as documents and answered from them.
EXECUTED = {
    "sagemaker": {
        "CreateTrainingJob", "StopTrainingJob", "CreateHyperParameterTuningJob", "StopHyperParameterTuningJob",
        "CreateProcessingJob", "StopProcessingJob", "CreateTransformJob", "StopTransformJob", "CreateEndpoint",
        "UpdateEndpoint", "UpdateEndpointWeightsAndCapacities", "DeleteEndpoint",
    },
    "sagemaker-runtime": {"InvokeEndpoint", "InvokeEndpointAsync", "InvokeEndpointWithResponseStream"},
    "ssm": {"SendCommand", "CancelCommand"},
    "ec2": {
        "RunInstances", "StartInstances", "StopInstances", "RebootInstances", "TerminateInstances",
        "GetConsoleOutput",
    },
    "application-autoscaling": {"RegisterScalableTarget", "PutScalingPolicy"},
}  # fmt: skip
# Services of moto that the pipeline and its tests use; the rest of moto answers too, untested here.
BY_MOTO = ("cloudformation", "cloudwatch", "ec2", "events", "iam", "kms", "sns", "sqs", "ssm", "sts")


def operations() -> str:
    """Return a section for each service: what executes, what is stored, what is refused, what moto answers."""
    parts = [_own(service, handled) for service, handled in sorted(registered().items())]
    parts.append(_section("s3", set(), s3_operations(), _model_operations("s3")))
    parts += [_moto(service) for service in BY_MOTO]
    return "\n" + "\n".join(parts) + "\n"


def registered() -> dict[str, set[str]]:
    """Return the operations that local_aws implements itself, by botocore's name of the service."""
    from local_aws.autoscaling import service as autoscaling
    from local_aws.ec2 import ssm
    from local_aws.logs import service as logs
    from local_aws.sagemaker import service as sagemaker

    return {
        "application-autoscaling": set(autoscaling.operation.handlers),
        "logs": set(logs.operation.handlers),
        "sagemaker": set(sagemaker.operation.handlers),
        "sagemaker-runtime": _runtime_operations(),
        "ssm": set(ssm.operation.handlers),
    }


def _runtime_operations() -> set[str]:
    """Return the runtime operations whose path the runtime app answers."""
    from local_aws.sagemaker.endpoints import runtime

    source = Path(runtime.__file__).read_text()
    paths = {"InvokeEndpoint": "invocations", "InvokeEndpointAsync": "async-invocations"}
    paths["InvokeEndpointWithResponseStream"] = "invocations-response-stream"
    return {name for name, path in paths.items() if path in source}


def s3_operations() -> set[str]:
    """Return the S3 operations with a handler, found by the method and sub-resource of botocore's model."""
    from local_aws.s3.app import S3App
    from local_aws.s3.store import S3Store

    with tempfile.TemporaryDirectory() as folder:
        app = S3App(S3Store(Path(folder)))
        app.store.close()
    found = {"ListBuckets", "UploadPartCopy", "CopyObject"}
    model = botocore.session.get_session().get_service_model("s3")
    for name in model.operation_names:
        http = model.operation_model(name).http
        path, _, query = http["requestUri"].partition("?")
        subresource = re.split(r"[&=]", query)[0] if query else ""
        if subresource in ("list-type", "x-id"):
            subresource = ""
        if http["method"] == "PUT" and name in ("UploadPart", "UploadPartCopy"):
            subresource = "uploadId"
        table = app._object_handlers if "{Key" in path else app._bucket_handlers
        if "{Bucket}" in path and (http["method"], subresource) in table:
            found.add(name)
    return found & set(model.operation_names)


def _model_operations(service: str) -> set[str]:
    return set(botocore.session.get_session().get_service_model(service).operation_names)


def _own(service: str, handled: set[str]) -> str:
    everything = _model_operations(service)
    executed = EXECUTED.get(service, set()) & handled
    refused = set() if service == "ssm" else everything - handled
    return _section(service, executed, handled - executed, everything, refused)


def _section(
    service: str, executed: set[str], stored: set[str], everything: set[str], refused: set[str] | None = None
) -> str:
    refused = everything - executed - stored if refused is None else refused
    lines = [f"### {service}", "", "| treatment | operations |", "|---|---|"]
    if executed:
        lines.append(f"| executed | {_names(executed)} |")
    if stored:
        lines.append(f"| stored | {_names(stored)} |")
    if refused:
        lines.append(f"| refused | the other {len(refused)} of {len(everything)} |")
    return "\n".join(lines) + "\n"


def _moto(service: str) -> str:
    from moto.core.responses import BaseResponse
    from moto.core.utils import camelcase_to_underscores

    handlers: set[str] = set()
    for response in _responses(service):
        handlers |= {name for name in dir(response) if name not in dir(BaseResponse)}
    everything = _model_operations(service)
    by_moto = {name for name in everything if camelcase_to_underscores(name) in handlers}
    executed = EXECUTED.get(service, set()) & everything
    own = registered().get(service, set())
    lines = [f"### {service} (moto)", "", "| treatment | operations |", "|---|---|"]
    if executed and service == "ec2":
        lines.append(f"| executed | {_names(executed)} |")
    lines.append(f"| by moto | {len(by_moto - own - executed)} of {len(everything)} |")
    return "\n".join(lines) + "\n"


def _responses(service: str) -> Iterable[Any]:
    import importlib
    import pkgutil

    from moto.core.responses import BaseResponse

    package = importlib.import_module(f"moto.{service}")
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if ".responses" in module.name:
            for value in vars(importlib.import_module(module.name)).values():
                if isinstance(value, type) and issubclass(value, BaseResponse):
                    yield value


def _names(names: set[str]) -> str:
    return ", ".join(sorted(names))
