"""SageMaker's state changes on EventBridge's default bus, for rules to deliver to SQS and others."""

from __future__ import annotations

import json
import logging
import queue
import threading
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from local_aws.context import Context
from local_aws.sagemaker.operations import operation
from local_aws.state.resources import Resource

logger = logging.getLogger(__name__)

_EVENTS = {
    "training-job": ("SageMaker Training Job State Change", "DescribeTrainingJob"),
    "hyper-parameter-tuning-job": (
        "SageMaker HyperParameter Tuning Job State Change",
        "DescribeHyperParameterTuningJob",
    ),
    "processing-job": ("SageMaker Processing Job State Change", "DescribeProcessingJob"),
    "transform-job": ("SageMaker Transform Job State Change", "DescribeTransformJob"),
    "endpoint": ("SageMaker Endpoint State Change", "DescribeEndpoint"),
    "endpoint-config": ("SageMaker Endpoint Config State Change", "DescribeEndpointConfig"),
    "model": ("SageMaker Model State Change", "DescribeModel"),
    "model-package": ("SageMaker Model Package State Change", "DescribeModelPackage"),
}
_STATE_MEMBERS = ("SecondaryStatus", "ModelApprovalStatus", "EndpointConfigName")
"""Members whose change is a state change even when the status stays."""


class StateChanges:
    """Publishes the store's changes in order, in the background."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="state changes", daemon=True)

    def start(self) -> None:
        """Subscribe to the store."""
        self._context.store.on_change(self._take)
        self._thread.start()

    def stop(self) -> None:
        """Publish the queued events, then end."""
        self._queue.put(None)
        self._thread.join(timeout=5)

    def _take(self, after: Resource, before: Resource | None) -> None:
        if after.kind in _EVENTS and is_state_change(after, before):
            self._queue.put({**entry(after, self._context.store.tags(after.arn)), "_region": after.region})

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            region = item.pop("_region")
            try:
                self._context.client("events", region).put_events(Entries=[item])
            except (ClientError, BotoCoreError) as error:
                logger.warning("%s could not be published: %s", item["DetailType"], error)


def is_state_change(after: Resource, before: Resource | None) -> bool:
    """Return True when EventBridge reports this change."""
    if before is None or after.status != before.status:
        return True
    return any(after.document.get(member) != before.document.get(member) for member in _STATE_MEMBERS)


def entry(resource: Resource, tags: dict[str, str]) -> dict[str, Any]:
    """Build the PutEvents entry of a resource: its description with times in epoch milliseconds, and its tags."""
    detail_type, describe = _EVENTS[resource.kind]
    shape: Any = operation.model.operation(describe).output_shape
    detail = _in_milliseconds(shape, operation.model.project(describe, resource.document))
    detail["Tags"] = tags
    return {
        "Source": "aws.sagemaker",
        "DetailType": detail_type,
        "Detail": json.dumps(detail),
        "Resources": [resource.arn],
    }


def _in_milliseconds(shape: Any, value: Any) -> Any:
    kind = shape.type_name
    if kind == "timestamp":
        return int(value * 1000)
    if kind == "structure":
        return {name: _in_milliseconds(shape.members[name], member) for name, member in value.items()}
    if kind == "list":
        return [_in_milliseconds(shape.member, member) for member in value]
    return value
