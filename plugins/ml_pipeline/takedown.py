"""Take an endpoint down on purpose: free everything that serves, keep everything that was learnt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ml_pipeline.jobs import is_missing
from ml_pipeline.requests.endpoint import VARIANT


def take_down(sagemaker: Any, cloudwatch: Any, scaling: Any, endpoint_name: str) -> dict[str, Any]:
    """Delete the endpoint, its config, its models, its alarms and its scaling. Packages, models in S3 and data stay.

    What is gone already is no error, so a second call is harmless. Returns `{"endpoint_name", "deleted": [...]}`.
    """
    from botocore.exceptions import ClientError

    deleted: list[str] = []

    def attempt(what: str, action: Callable[[], Any]) -> Any:
        try:
            response = action()
        except ClientError as error:
            if not is_missing(error):
                raise
            return None
        deleted.append(what)
        return response

    try:
        endpoint = sagemaker.describe_endpoint(EndpointName=endpoint_name)
        config_name = endpoint.get("EndpointConfigName")
    except ClientError as error:
        if not is_missing(error):
            raise
        config_name = None
    resource = f"endpoint/{endpoint_name}/variant/{VARIANT}"
    if scaling.describe_scalable_targets(ServiceNamespace="sagemaker", ResourceIds=[resource])[
        "ScalableTargets"
    ]:
        scaling.deregister_scalable_target(
            ServiceNamespace="sagemaker",
            ResourceId=resource,
            ScalableDimension="sagemaker:variant:DesiredInstanceCount",
        )
        deleted.append("autoscaling")
    attempt(f"endpoint {endpoint_name}", lambda: sagemaker.delete_endpoint(EndpointName=endpoint_name))
    if config_name:
        config = sagemaker.describe_endpoint_config(EndpointConfigName=config_name)
        attempt(
            f"endpoint config {config_name}",
            lambda: sagemaker.delete_endpoint_config(EndpointConfigName=config_name),
        )
        for model in [variant["ModelName"] for variant in config["ProductionVariants"]]:
            attempt(f"model {model}", lambda model=model: sagemaker.delete_model(ModelName=model))  # type: ignore[misc]
    alarms = [f"{endpoint_name}-5xx", f"{endpoint_name}-latency"]
    present = cloudwatch.describe_alarms(AlarmNames=alarms)["MetricAlarms"]
    if present:
        cloudwatch.delete_alarms(AlarmNames=[alarm["AlarmName"] for alarm in present])
        deleted += [f"alarm {alarm['AlarmName']}" for alarm in present]
    return {"endpoint_name": endpoint_name, "deleted": deleted}
