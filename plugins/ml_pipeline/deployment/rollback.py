"""After a deployment: retire what served before, or bring it back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_pipeline.aws.jobs import is_missing
from ml_pipeline.registry import packages as registry


def roll_back(sagemaker: Any, deployment: Mapping[str, Any], reason: str) -> str:
    """Put the config before back into service, if there was one; says in a line what was done.

    Args:
        deployment: What the deploy task returned.
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


def retire(sagemaker: Any, config_name: str) -> None:
    """Delete an endpoint config that serves no more, and its models; what is gone already is no error."""
    from botocore.exceptions import ClientError

    try:
        config = sagemaker.describe_endpoint_config(EndpointConfigName=config_name)
        sagemaker.delete_endpoint_config(EndpointConfigName=config_name)
        for variant in config["ProductionVariants"]:
            sagemaker.delete_model(ModelName=variant["ModelName"])
    except ClientError as error:
        if not is_missing(error):
            raise
