"""Take an endpoint down: delete everything that serves, keep everything that was learnt."""

from __future__ import annotations

import time
from collections.abc import Callable

from ml_pipeline.aws.clients import Client
from ml_pipeline.aws.jobs import is_missing
from ml_pipeline.deployment import scaling as endpoint_scaling
from ml_pipeline.deployment.status import UNSETTLED
from ml_pipeline.requests import names
from ml_pipeline.requests.endpoint import ENDPOINT_TAG
from ml_pipeline.requests.types import Document, TakenDown

_PAUSE_SECONDS = 5.0
_PATIENCE_SECONDS = 3600.0


def take_down(sagemaker: Client, cloudwatch: Client, scaling: Client, endpoint_name: str) -> TakenDown:
    """Delete the endpoint, its configs, its models, its alarms and its scaling. Packages, models in S3 and data stay.

    Missing things are no error, and configs are also found by their tag: a second call completes an interrupted one.

    Raises:
        TimeoutError: The endpoint is still being changed after an hour.
    """
    deleted: list[str] = []

    def attempt(what: str, action: Callable[..., Document], **request: str) -> None:
        if _unless_missing(action, **request) is not None:
            deleted.append(what)

    live = _settled(sagemaker, endpoint_name)
    configs = _configs(sagemaker, endpoint_name, live)
    if endpoint_scaling.remove(scaling, endpoint_name):
        deleted.append("autoscaling")
    if live.get("EndpointStatus") != "Deleting":
        attempt(f"endpoint {endpoint_name}", sagemaker.delete_endpoint, EndpointName=endpoint_name)
    for name in configs:
        config = _unless_missing(sagemaker.describe_endpoint_config, EndpointConfigName=name) or {}
        # The config last: without it its models could not be found.
        for variant in config.get("ProductionVariants", []):
            model = variant["ModelName"]
            attempt(f"model {model}", sagemaker.delete_model, ModelName=model)
        attempt(f"endpoint config {name}", sagemaker.delete_endpoint_config, EndpointConfigName=name)
    alarms = [names.alarm(endpoint_name, kind) for kind in ("5xx", "latency", "drift")]
    present = cloudwatch.describe_alarms(AlarmNames=alarms)["MetricAlarms"]
    if present:
        cloudwatch.delete_alarms(AlarmNames=[alarm["AlarmName"] for alarm in present])
        deleted += [f"alarm {alarm['AlarmName']}" for alarm in present]
    return {"endpoint_name": endpoint_name, "deleted": deleted}


def _settled(sagemaker: Client, endpoint_name: str) -> Document:
    """Return the endpoint once no rollout is under way, {} if there is none: AWS refuses to delete during one."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        live: Document = _unless_missing(sagemaker.describe_endpoint, EndpointName=endpoint_name) or {}
        status = live.get("EndpointStatus")
        if status == "Deleting" or status not in UNSETTLED:
            return live
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"endpoint {endpoint_name} is still {status}; take it down when its rollout is over"
            )
        time.sleep(_PAUSE_SECONDS)


def _configs(sagemaker: Client, endpoint_name: str, live: Document) -> list[str]:
    """Return the config that serves, and all others that were made for this endpoint."""
    found = [live["EndpointConfigName"]] if "EndpointConfigName" in live else []
    tag = {"Key": ENDPOINT_TAG, "Value": endpoint_name}
    pages = sagemaker.get_paginator("list_endpoint_configs").paginate(NameContains=names.slug(endpoint_name))
    for row in (row for page in pages for row in page["EndpointConfigs"]):
        name, arn = row["EndpointConfigName"], row["EndpointConfigArn"]
        if name not in found and tag in sagemaker.list_tags(ResourceArn=arn)["Tags"]:
            found.append(name)
    return found


def _unless_missing(action: Callable[..., Document], **request: str) -> Document | None:
    """Return the answer of the call; None if the thing does not exist."""
    from botocore.exceptions import ClientError

    try:
        return action(**request)
    except ClientError as error:
        if not is_missing(error):
            raise
        return None
