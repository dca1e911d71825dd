"""The state of an endpoint, and the step that brings a model into service from there."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from ml_pipeline.aws.clients import Client
from ml_pipeline.aws.jobs import is_missing
from ml_pipeline.requests.endpoint import Serving
from ml_pipeline.requests.types import Document

UNSETTLED = frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"})
# Status reported for an endpoint that does not exist.
ABSENT = "Absent"


class Step(StrEnum):
    """The next step of a deployment."""

    CREATE = "create"
    UPDATE = "update"
    RESIZE = "resize"
    """The config that was asked for serves, on another number of instances."""
    JOIN = "join"
    """The config that was asked for is being rolled out."""
    WAIT = "wait"
    """Another rollout is under way."""
    DELETE = "delete"
    """The endpoint never came up, and UpdateEndpoint takes only one that is InService."""
    DONE = "done"


def describe(sagemaker: Client, endpoint_name: str) -> Document:
    """Return the Describe response, with the status ABSENT if there is no such endpoint."""
    from botocore.exceptions import ClientError

    try:
        response: Document = sagemaker.describe_endpoint(EndpointName=endpoint_name)
    except ClientError as error:
        if is_missing(error):
            return {"EndpointStatus": ABSENT}
        raise
    return response


def next_step(serving: Serving, live: Document) -> Step:
    """Decide what to do about an endpoint in its present state."""
    status = live["EndpointStatus"]
    if status == ABSENT:
        return Step.CREATE
    if status in UNSETTLED:
        pending = live.get("PendingDeploymentSummary", {}).get("EndpointConfigName")
        ours = (pending or live.get("EndpointConfigName")) == serving.config_name
        return Step.JOIN if ours and status in ("Creating", "Updating") else Step.WAIT
    if status in ("Failed", "OutOfService"):
        return Step.DELETE
    if status == "InService" and live["EndpointConfigName"] == serving.config_name:
        sized = serving.scales or _instances(live, serving) == serving.instance_count
        return Step.DONE if sized else Step.RESIZE
    return Step.UPDATE


def rollback_reason(
    serving: Serving, status: str, config: str, reason: str, alarms: Sequence[Document]
) -> str:
    """Explain a failed deployment in one line: SageMaker often leaves FailureReason empty after a rollback.

    Args:
        serving: The deployment that was asked for.
        status: Status of the endpoint after the rollout.
        config: Name of the endpoint configuration in use after the rollout.
        reason: FailureReason of the endpoint, "" if SageMaker gives none.
        alarms: Alarms of the rollout that are on.
    """
    rang = "; ".join(f"alarm {alarm['AlarmName']}: {alarm.get('StateReason', '')}" for alarm in alarms)
    return (
        f"endpoint {serving.endpoint_name} is {status} with config {config or 'none'} "
        f"instead of {serving.config_name}; {rang or reason or 'no alarm is on and SageMaker gave no reason'}"
    )


def _instances(live: Document, serving: Serving) -> int:
    variants = live.get("ProductionVariants") or [{}]
    count: int = variants[0].get("DesiredInstanceCount", serving.instance_count)
    return count
