"""After a deployment: remove the config that served before, or bring it back."""

from __future__ import annotations

from ml_pipeline.aws.clients import Client
from ml_pipeline.aws.jobs import is_missing
from ml_pipeline.deployment import status
from ml_pipeline.registry import packages as registry
from ml_pipeline.requests.types import Deployed


def roll_back(sagemaker: Client, deployment: Deployed, reason: str) -> str:
    """Put the config before back into service, if there was one.

    Returns:
        A line that says what was done.
    """
    from botocore.exceptions import ClientError

    registry.reject(sagemaker, deployment["model_package_arn"], reason)
    endpoint, previous = deployment["endpoint_name"], deployment.get("previous_config_name")
    if not previous:
        return f"endpoint {endpoint} keeps the model that failed: there is none before it to go back to"
    try:
        sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=previous)
    except ClientError as error:
        if not is_missing(error):
            raise
        return f"endpoint {endpoint} keeps the model that failed: {previous}, which served before it, was removed"
    return f"endpoint {endpoint} goes back to {previous}"


def retire(sagemaker: Client, endpoint_name: str, config_name: str) -> None:
    """Delete an endpoint config that no longer serves, and its models; a missing one is no error.

    A model that the endpoint's own config has too stays: both serve the same version if only instances or capture
    have changed, and without its model the endpoint could start no instance any more.
    """
    from botocore.exceptions import ClientError

    live = status.describe(sagemaker, endpoint_name).get("EndpointConfigName")
    if live == config_name:
        return
    used = _models(sagemaker, live) if live else set()
    try:
        models = _models(sagemaker, config_name)
        sagemaker.delete_endpoint_config(EndpointConfigName=config_name)
        for model in models - used:
            sagemaker.delete_model(ModelName=model)
    except ClientError as error:
        if not is_missing(error):
            raise


def _models(sagemaker: Client, config_name: str) -> set[str]:
    config = sagemaker.describe_endpoint_config(EndpointConfigName=config_name)
    return {variant["ModelName"] for variant in config["ProductionVariants"]}
