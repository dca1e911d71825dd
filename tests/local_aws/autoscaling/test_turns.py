"""Scaling and deregistering take turns: a deployment that has ended scaling is not undone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local_aws.autoscaling.service import deregister_scalable_target
from local_aws.autoscaling.target_tracking import (
    ACTIVITY,
    DIMENSION,
    POLICY,
    TARGET,
    Decision,
    Scaling,
    TargetTracking,
)
from local_aws.context import Context
from local_aws.execution import images
from local_aws.execution.capacity import Capacity
from local_aws.gateway.json_service import Call
from local_aws.settings import Settings
from local_aws.state.logs import LogStore
from local_aws.state.resources import Resource, Store
from tests.local_aws.cloud import IMAGES, eventually

PLACE = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/e/variant/v",
    "ScalableDimension": DIMENSION,
}


class Recorder(Context):
    """A context whose clients note what they are asked, and wait for `go` where it sets the number of servers."""

    asked: list[str]
    go: threading.Event

    def client(self, service: str, region: str | None = None, role: str = "") -> Any:
        return self

    def update_endpoint_weights_and_capacities(self, **_: Any) -> None:
        self.asked.append("scale")
        self.go.wait(10)
        self.asked.append("scaled")

    def delete_alarms(self, **_: Any) -> None:
        self.asked.append("end")


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Recorder]:
    settings = Settings(tmp_path, IMAGES, cores=1)
    logs = LogStore(tmp_path / "logs.db")
    store = Store(tmp_path / "state.db", lambda _kind: "Status")
    made = Recorder(settings, "http://127.0.0.1:1", store, images.load(IMAGES), Capacity(1), logs)
    made.asked, made.go = [], threading.Event()
    store.create(Resource(TARGET, "us-east-1", "e/v", "arn:target", dict(PLACE)))
    policy = {**PLACE, "PolicyName": "p", "Alarms": [{"AlarmName": "a"}]}
    store.create(Resource(POLICY, "us-east-1", "e/v:p", "arn:policy", policy, parent="e/v"))
    yield made
    made.go.set()


def test_deregistering_waits_for_the_scaling_that_has_begun(context: Recorder) -> None:
    policy = context.store.get(POLICY, "us-east-1", "e/v:p")
    tracking = TargetTracking(context)
    scaling = threading.Thread(target=tracking.take_turn, args=(policy, Decision(2, "test"), 1))
    ending = threading.Thread(
        target=deregister_scalable_target,
        args=(Call(context, "us-east-1", "DeregisterScalableTarget", dict(PLACE)),),
    )
    scaling.start()
    eventually(lambda: context.asked == ["scale"])
    ending.start()
    ending.join(0.2)
    assert context.asked == ["scale"]
    assert context.part(Scaling).turn.locked()
    context.go.set()
    scaling.join(10)
    ending.join(10)
    assert context.asked == ["scale", "scaled", "end"]
    assert [item.document["StatusCode"] for item in context.store.all(ACTIVITY)] == ["Successful"]
    assert context.store.all(TARGET) == []


def test_a_decision_made_before_deregistering_scales_nothing(context: Recorder) -> None:
    policy = context.store.get(POLICY, "us-east-1", "e/v:p")
    deregister_scalable_target(Call(context, "us-east-1", "DeregisterScalableTarget", dict(PLACE)))
    TargetTracking(context).take_turn(policy, Decision(2, "test"), 1)
    assert context.asked == ["end"]
