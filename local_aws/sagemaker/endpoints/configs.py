"""Endpoint configurations."""

from __future__ import annotations

import time

from local_aws.errors import validation_error
from local_aws.gateway.json_service import Call, Document
from local_aws.sagemaker import models
from local_aws.sagemaker.operations import list_query, operation, request_tags, summaries
from local_aws.state.resources import AlreadyExists, Missing, Resource

KIND = "endpoint-config"

_REFUSED = {
    "ShadowProductionVariants": "Shadow variants are",
    "ExplainerConfig": "Explainers (Clarify) are",
}


@operation("CreateEndpointConfig")
def create_endpoint_config(call: Call) -> Document:
    """Check the variants and record them."""
    params = call.params
    name, now = params["EndpointConfigName"], time.time()
    for member, what in _REFUSED.items():
        if params.get(member):
            raise validation_error(f"{what} not supported by local_aws: leave {member} out.")
    _check_variants(call, params["ProductionVariants"])
    if "AsyncInferenceConfig" in params and any(
        "ServerlessConfig" in v for v in params["ProductionVariants"]
    ):
        raise validation_error("AsyncInferenceConfig cannot be combined with ServerlessConfig.")
    arn = call.arn(f"endpoint-config/{name}")
    document: Document = {
        "EnableNetworkIsolation": False,
        **{member: value for member, value in params.items() if member != "Tags"},
        "EndpointConfigArn": arn,
        "CreationTime": now,
    }
    try:
        call.context.store.create(
            Resource(KIND, call.region, name, arn, document, created=now), request_tags(call)
        )
    except AlreadyExists as error:
        raise validation_error(
            f'Cannot create already existing endpoint configuration "{error.args[0]}".'
        ) from None
    return {"EndpointConfigArn": arn}


@operation("DescribeEndpointConfig")
def describe_endpoint_config(call: Call) -> Document:
    """The record."""
    return get(call, call.params["EndpointConfigName"]).document


@operation("ListEndpointConfigs")
def list_endpoint_configs(call: Call) -> Document:
    """By name and time."""
    return summaries(call, list_query(call, KIND), "EndpointConfigs")


@operation("DeleteEndpointConfig")
def delete_endpoint_config(call: Call) -> None:
    """Remove the record; endpoints that use it go on."""
    call.context.store.delete(KIND, call.region, get(call, call.params["EndpointConfigName"]).name)


def get(call: Call, name: str) -> Resource:
    """A configuration by name. Raises AWS's ValidationException."""
    try:
        return call.context.store.get(KIND, call.region, name)
    except Missing:
        arn = call.arn(f"endpoint-config/{name}")
        raise validation_error(f'Could not find endpoint configuration "{arn}".') from None


def containers(call: Call, config: Document) -> dict[str, Document]:
    """Model name -> the one container that serves it, for every variant. Raises ValidationException."""
    names = {variant["ModelName"] for variant in config["ProductionVariants"]}
    return {name: models.container_of(call, name) for name in names}


def _check_variants(call: Call, variants: list[Document]) -> None:
    names = [variant["VariantName"] for variant in variants]
    if len(set(names)) != len(names):
        raise validation_error("Variant names must be unique within an endpoint configuration.")
    for variant in variants:
        if "ModelName" not in variant:
            raise validation_error(
                f"Variant {variant['VariantName']} has no ModelName; local_aws does not support inference components."
            )
        models.get(call, variant["ModelName"])
        serverless = "ServerlessConfig" in variant
        if serverless == ("InstanceType" in variant):
            raise validation_error(
                f"Variant {variant['VariantName']} needs either InstanceType with InitialInstanceCount, or "
                "ServerlessConfig."
            )
        if not serverless and "InitialInstanceCount" not in variant:
            raise validation_error(f"Variant {variant['VariantName']} needs InitialInstanceCount.")
