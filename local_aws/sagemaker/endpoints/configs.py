"""Endpoint configurations."""

from __future__ import annotations

from local_aws.errors import validation_error
from local_aws.gateway.json_service import Call, Document
from local_aws.sagemaker import models
from local_aws.sagemaker.operations import operation
from local_aws.sagemaker.records import Records

KIND = "endpoint-config"
RECORDS = Records(
    KIND,
    "EndpointConfig",
    missing='Could not find endpoint configuration "{arn}".',
    exists='Cannot create already existing endpoint configuration "{arn}".',
    dated=False,
)

SERVERLESS_MEMORY = range(1024, 6145, 1024)
"""Memory sizes of serverless variants in MB (ProductionVariantServerlessConfig)."""

_REFUSED = {
    "ShadowProductionVariants": "Shadow variants are",
    "ExplainerConfig": "Explainers (Clarify) are",
}


@operation("CreateEndpointConfig")
def create_endpoint_config(call: Call) -> Document:
    """Check the variants and store the configuration."""
    params = call.params
    for member, what in _REFUSED.items():
        if params.get(member):
            raise validation_error(f"{what} not supported by local_aws: leave {member} out.")
    _check_variants(call, params["ProductionVariants"])
    if "AsyncInferenceConfig" in params and any(
        "ServerlessConfig" in v for v in params["ProductionVariants"]
    ):
        raise validation_error("AsyncInferenceConfig cannot be combined with ServerlessConfig.")
    isolated = params.get("EnableNetworkIsolation", False)
    return RECORDS.answer(RECORDS.create_from(call, EnableNetworkIsolation=isolated))


RECORDS.describes_and_lists("EndpointConfigs")
RECORDS.deletes()  # endpoints that use it keep running


def containers(call: Call, config: Document) -> dict[str, list[Document]]:
    """Resolve the containers of every variant's model.

    Returns:
        Model name -> containers.

    Raises:
        AwsError: ValidationException for a model that `models.containers_of` refuses.
    """
    names = {variant["ModelName"] for variant in config["ProductionVariants"]}
    return {name: models.containers_of(call, name) for name in names}


def _check_variants(call: Call, variants: list[Document]) -> None:
    names = [variant["VariantName"] for variant in variants]
    if len(set(names)) != len(names):
        raise validation_error("Variant names must be unique within an endpoint configuration.")
    for variant in variants:
        if "ModelName" not in variant:
            raise validation_error(
                f"Variant {variant['VariantName']} has no ModelName; local_aws does not support inference components."
            )
        models.RECORDS.get(call.context, call.region, variant["ModelName"])
        serverless = "ServerlessConfig" in variant
        if serverless + ("InstanceType" in variant) + ("InstancePools" in variant) != 1:
            raise validation_error(
                f"Variant {variant['VariantName']} needs either InstanceType or InstancePools with "
                "InitialInstanceCount, or ServerlessConfig."
            )
        # The limits of serverless endpoints: no inference pipelines.
        if serverless and len(models.containers_of(call, variant["ModelName"])) > 1:
            raise validation_error(
                f"Model {variant['ModelName']} of variant {variant['VariantName']} has several containers; "
                "serverless variants serve one."
            )
        for member in ("InstanceType", "Priority"):
            values = [pool[member] for pool in variant.get("InstancePools", [])]
            if len(set(values)) < len(values):
                raise validation_error(
                    f"InstancePools of variant {variant['VariantName']} repeat a {member}."
                )
        memory = variant.get("ServerlessConfig", {}).get("MemorySizeInMB", SERVERLESS_MEMORY[0])
        if memory not in SERVERLESS_MEMORY:
            raise validation_error(
                f"MemorySizeInMB of variant {variant['VariantName']} is {memory}; it must be one of "
                f"{', '.join(map(str, SERVERLESS_MEMORY))}."
            )
        if not serverless and "InitialInstanceCount" not in variant:
            raise validation_error(f"Variant {variant['VariantName']} needs InitialInstanceCount.")
