"""Endpoint page: state, versions, traffic and cost of what serves; and one photo asked by hand."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from ml_pipeline.aws import s3 as objects
from ml_pipeline.aws.jobs import is_missing
from ml_pipeline.console import models
from ml_pipeline.console.store import Absent, Store
from ml_pipeline.costs.prices import Prices
from ml_pipeline.deployment import scaling
from ml_pipeline.deployment.smoke_test import TEST_MARK
from ml_pipeline.requests import preferences
from ml_pipeline.requests.types import Document
from ml_pipeline.watching import state as memory
from ml_pipeline.watching.state import WatchError

# The most that SageMaker takes in one request (InvokeEndpoint).
MAX_PHOTO_BYTES = 6 * 2**20
_NAMESPACE = "AWS/SageMaker"
_LOOKS = 200
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
    """Return an endpoint's version, rollout, instances, scaling, cost, captures, alarms and traffic of `hours`.

    Raises:
        Absent: There is no such endpoint.
    """
    live = _describe(store, name)
    describe = store.client("sagemaker").describe_endpoint_config
    config = models.if_there(partial(describe, EndpointConfigName=live["EndpointConfigName"]))
    variants = [_variant(variant) for variant in live.get("ProductionVariants", [])]
    machines = {
        variant["VariantName"]: preferences.in_variant(variant)
        for variant in config.get("ProductionVariants", [])
    }
    prices = Prices.load(store.settings)
    per_hour = 0.0
    for variant in variants:
        variant["instance_type"] = machines.get(variant["name"])
        usd = prices.usd(variant["instance_type"] or "ml.", 3600, variant["instances"] or 0)
        per_hour += usd or 0.0
    pending = live.get("PendingDeploymentSummary", {}).get("EndpointConfigName")
    alive = datetime.now(UTC) - live["CreationTime"]
    return {
        "name": name,
        "status": live["EndpointStatus"],
        "reason": live.get("FailureReason"),
        "config": live["EndpointConfigName"],
        "pending": pending,
        "created": live["CreationTime"].isoformat(),
        "variants": variants,
        "versions": models.served_versions(store, live["EndpointConfigName"]),
        "pending_versions": models.served_versions(store, pending) if pending else [],
        "scaling": store.brief(
            ("scaling", name), lambda: scaling.limits(store.client("application-autoscaling"), name)
        ),
        "capture": _capture(store, name, config),
        # Without its config nothing tells the instance types.
        "usd_per_hour": round(per_hour, 4) if config else None,
        "usd_so_far": round(per_hour * alive.total_seconds() / 3600, 2) if config else None,
        "alarms": _alarms(store, name),
        "traffic": _traffic(store, name, [variant["name"] for variant in variants], hours),
    }


def looks(store: Store, name: str) -> Document:
    """Return what watch found in an endpoint's traffic, the oldest look first.

    Raises:
        Absent: The memory of the watch is damaged.
    """
    try:
        state, _ = memory.load(store.client("s3"), store.settings.bucket, name)
    except WatchError as error:
        raise Absent(str(error)) from error
    return {
        "looks": [
            {
                "number": taken.look.number,
                "ended": taken.look.ended.isoformat(),
                "photos": taken.look.photos,
                "p": taken.look.p,
                "accuracy": taken.look.accuracy,
                "low": taken.look.low,
                "high": taken.look.high,
                "true": (taken.truth or {}).get("value"),
                "unknown": taken.unknown,
                "verdict": taken.verdict,
                "reason": taken.reason,
            }
            for taken in state.looks[-_LOOKS:]
        ],
        "proposals": len(state.proposals),
    }


def _capture(store: Store, name: str, config: Document) -> Document | None:
    """Return the share of requests that is kept, where, and how many files came since yesterday; None: nothing is.

    The number is None where they cannot be listed, in a bucket that the pipeline may not read.
    """
    from botocore.exceptions import ClientError

    found = config.get("DataCaptureConfig", {})
    if not found.get("EnableCapture"):
        return None
    variant = config["ProductionVariants"][0]["VariantName"]
    uri = f"{found['DestinationS3Uri'].rstrip('/')}/{name}/{variant}/"
    since = datetime.now(UTC) - timedelta(days=1)
    bucket, prefix = objects.split_uri(uri)

    def read() -> int | None:
        pages = store.client("s3").get_paginator("list_objects_v2")
        found = pages.paginate(Bucket=bucket, Prefix=prefix, StartAfter=f"{prefix}{since:%Y/%m/%d/%H}")
        try:
            return sum(page.get("KeyCount", 0) for page in found)
        except ClientError:
            return None

    files = store.brief(("captures", uri), read)
    return {"percent": found.get("InitialSamplingPercentage"), "uri": uri, "files": files}


def ask(store: Store, name: str, photo: bytes, content_type: str, heat_map: bool = False) -> Document | bytes:
    """Return an endpoint's answer to one photo, or the heat map of its class as a PNG.

    Args:
        store: The console's store.
        name: Name of the endpoint.
        photo: Bytes of the photo.
        content_type: Its media type.
        heat_map: The heat map is wanted, not the answer.

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
            Accept="image/png" if heat_map else "application/json",
            InferenceId=f"{TEST_MARK}/console",
            **({"CustomAttributes": "explain=true"} if heat_map else {}),
        )
    except ClientError as error:
        if error.response["Error"]["Code"] == "ModelError":
            raise PhotoRefused(reason(str(error.response.get("OriginalMessage") or error))) from error
        raise
    body: bytes = response["Body"].read()
    if heat_map:
        if not body.startswith(b"\x89PNG\r\n"):
            raise PhotoRefused("the endpoint sends no heat map: it serves a model of an older release")
        return body
    answer: Any = json.loads(body)
    return {"answer": answer, "milliseconds": round(1000 * (time.monotonic() - started), 1)}


def reason(answer: str) -> str:
    """Return the words of a model server's refusal, without the JSON around them."""
    try:
        return str(json.loads(answer)["error"]["message"])
    except (ValueError, TypeError, KeyError):
        return answer


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
