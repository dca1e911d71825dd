"""Endpoint page: state, versions, traffic and cost of what serves; and one photo asked by hand."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from ml_pipeline.aws.jobs import is_missing
from ml_pipeline.console.store import Absent, Store
from ml_pipeline.costs.prices import Prices
from ml_pipeline.deployment.smoke_test import TEST_MARK
from ml_pipeline.requests.types import Document

# The most that SageMaker takes in one request (InvokeEndpoint).
MAX_PHOTO_BYTES = 6 * 2**20
_NAMESPACE = "AWS/SageMaker"
_SERIES = {
    "requests": ("Invocations", "Sum"),
    "latency_us": ("ModelLatency", "Average"),
    "client_errors": ("Invocation4XXErrors", "Sum"),
    "server_errors": ("Invocation5XXErrors", "Sum"),
}


class PhotoRefused(ValueError):
    """An endpoint refuses a photo; the message is its reason."""


def listed(store: Store) -> list[Document]:
    """Return the endpoints with their states."""

    def read() -> list[Document]:
        pages = store.client("sagemaker").get_paginator("list_endpoints").paginate()
        return [
            {
                "name": endpoint["EndpointName"],
                "status": endpoint["EndpointStatus"],
                "changed": endpoint["LastModifiedTime"].isoformat(),
            }
            for page in pages
            for endpoint in page["Endpoints"]
        ]

    return store.brief("endpoints", read)


def one(store: Store, name: str, hours: float) -> Document:
    """Return an endpoint's rollout, instances, cost, alarms and traffic of the last `hours`.

    Raises:
        Absent: There is no such endpoint.
    """
    live = _describe(store, name)
    config = store.client("sagemaker").describe_endpoint_config(EndpointConfigName=live["EndpointConfigName"])
    variants = [_variant(variant) for variant in live.get("ProductionVariants", [])]
    machines = {
        variant["VariantName"]: variant.get("InstanceType") for variant in config["ProductionVariants"]
    }
    prices = Prices.load(store.settings)
    per_hour = 0.0
    for variant in variants:
        variant["instance_type"] = machines.get(variant["name"])
        usd = prices.sagemaker.get(variant["instance_type"] or "")
        per_hour += (usd or 0.0) * (variant["instances"] or 0)
    alive = datetime.now(UTC) - live["CreationTime"]
    return {
        "name": name,
        "status": live["EndpointStatus"],
        "reason": live.get("FailureReason"),
        "config": live["EndpointConfigName"],
        "pending": live.get("PendingDeploymentSummary", {}).get("EndpointConfigName"),
        "created": live["CreationTime"].isoformat(),
        "variants": variants,
        "capture": bool(config.get("DataCaptureConfig", {}).get("EnableCapture")),
        "usd_per_hour": round(per_hour, 4),
        "usd_so_far": round(per_hour * alive.total_seconds() / 3600, 2),
        "alarms": _alarms(store, name),
        "traffic": _traffic(store, name, [variant["name"] for variant in variants], hours),
    }


def ask(store: Store, name: str, photo: bytes, content_type: str) -> Document:
    """Return an endpoint's answer to one photo.

    Raises:
        Absent: There is no such endpoint.
        PhotoRefused: The endpoint refuses the photo.
    """
    import time

    from botocore.exceptions import ClientError

    _describe(store, name)
    started = time.monotonic()
    try:
        response = store.client("sagemaker-runtime").invoke_endpoint(
            EndpointName=name,
            Body=photo,
            ContentType=content_type,
            Accept="application/json",
            InferenceId=f"{TEST_MARK}/console",
        )
    except ClientError as error:
        if error.response["Error"]["Code"] == "ModelError":
            raise PhotoRefused(error.response.get("OriginalMessage") or str(error)) from error
        raise
    answer: Any = json.loads(response["Body"].read())
    return {"answer": answer, "milliseconds": round(1000 * (time.monotonic() - started), 1)}


def _describe(store: Store, name: str) -> Document:
    from botocore.exceptions import ClientError

    try:
        live: Document = store.client("sagemaker").describe_endpoint(EndpointName=name)
    except ClientError as error:
        if is_missing(error):
            raise Absent(f"there is no endpoint {name}") from error
        raise
    return live


def _variant(variant: Document) -> Document:
    return {
        "name": variant["VariantName"],
        "instances": variant.get("CurrentInstanceCount"),
        "wanted": variant.get("DesiredInstanceCount"),
        "weight": variant.get("CurrentWeight"),
    }


def _alarms(store: Store, name: str) -> list[Document]:
    found = store.client("cloudwatch").describe_alarms(AlarmNamePrefix=name)["MetricAlarms"]
    return [
        {"name": alarm["AlarmName"], "state": alarm["StateValue"], "reason": alarm.get("StateReason", "")}
        for alarm in found
    ]


def _traffic(store: Store, name: str, variants: list[str], hours: float) -> Document:
    """Return the series of `_SERIES` over all variants: [seconds since 1970, value]."""
    now = datetime.now(UTC)
    period = max(60, int(hours * 3600 / 60) // 60 * 60)
    series: Document = {}
    for label, (metric, statistic) in _SERIES.items():
        points: dict[float, float] = {}
        for variant in variants:
            found = store.client("cloudwatch").get_metric_statistics(
                Namespace=_NAMESPACE,
                MetricName=metric,
                Dimensions=[
                    {"Name": "EndpointName", "Value": name},
                    {"Name": "VariantName", "Value": variant},
                ],
                StartTime=now - timedelta(hours=hours),
                EndTime=now,
                Period=period,
                Statistics=[statistic],
            )["Datapoints"]
            for point in found:
                at = point["Timestamp"].timestamp()
                points[at] = points.get(at, 0.0) + point[statistic]
        series[label] = sorted(points.items())
    return {"period": period, **series}
