"""The next step of a deployment, and the requests of an update."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ml_pipeline.deployment.status import next_step, rollback_reason
from ml_pipeline.operators.deploy import DeployEndpointOperator
from ml_pipeline.requests.endpoint import Serving, update_endpoint

SERVING = Serving(
    endpoint_name="dogs",
    model_uri="s3://bucket/model.tar.gz",
    image="123456789012.dkr.ecr.us-east-1.amazonaws.com/ml-pipeline-serving:1",
    role_arn="arn:aws:iam::123456789012:role/jobs",
    instance_type="ml.m5.large",
)
SERVES = {"EndpointStatus": "InService", "EndpointConfigName": SERVING.config_name}


@pytest.mark.parametrize(
    ("live", "step"),
    [
        ({"EndpointStatus": "Absent"}, "create"),
        ({"EndpointStatus": "Creating", "EndpointConfigName": SERVING.config_name}, "join"),
        ({"EndpointStatus": "Creating", "EndpointConfigName": "other"}, "wait"),
        (
            {
                "EndpointStatus": "Updating",
                "EndpointConfigName": "old",
                "PendingDeploymentSummary": {"EndpointConfigName": SERVING.config_name},
            },
            "join",
        ),
        (
            {
                "EndpointStatus": "Updating",
                "EndpointConfigName": "old",
                "PendingDeploymentSummary": {"EndpointConfigName": "another"},
            },
            "wait",
        ),
        ({"EndpointStatus": "RollingBack", "EndpointConfigName": SERVING.config_name}, "wait"),
        ({"EndpointStatus": "InService", "EndpointConfigName": SERVING.config_name}, "done"),
        ({"EndpointStatus": "InService", "EndpointConfigName": "old"}, "update"),
        ({"EndpointStatus": "Failed", "EndpointConfigName": "old"}, "delete"),
    ],
)
def test_what_to_do_about_an_endpoint(live: dict[str, Any], step: str) -> None:
    assert next_step(SERVING, live) == step


def test_a_rollback_names_the_alarm() -> None:
    alarm = {"AlarmName": "dogs-5xx", "StateReason": "Threshold Crossed"}
    assert "alarm dogs-5xx: Threshold Crossed" in rollback_reason(SERVING, "InService", "old", "", [alarm])
    assert "SageMaker gave no reason" in rollback_reason(SERVING, "InService", "old", "", [])


def test_the_load_decides_on_the_number_of_machines_only_where_it_may() -> None:
    scaling = replace(SERVING, max_count=3)
    three = {**SERVES, "ProductionVariants": [{"DesiredInstanceCount": 3}]}
    assert (next_step(SERVING, three), next_step(scaling, three)) == ("resize", "done")
    assert not update_endpoint(SERVING, 3)["RetainAllVariantProperties"]
    assert update_endpoint(scaling, 3)["RetainAllVariantProperties"]


def test_one_machine_has_no_canary() -> None:
    def routing(live: int, count: int, most: int = 1) -> dict[str, Any]:
        update = update_endpoint(replace(SERVING, instance_count=count, max_count=most), live)
        policy = update["DeploymentConfig"]["BlueGreenUpdatePolicy"]
        found: dict[str, Any] = policy["TrafficRoutingConfiguration"]
        return found

    one_of_four = {"Type": "INSTANCE_COUNT", "Value": 1}
    assert routing(1, 1)["Type"] == "ALL_AT_ONCE"
    assert routing(4, 1)["Type"] == "ALL_AT_ONCE"
    assert routing(1, 4)["CanarySize"] == one_of_four
    assert routing(4, 1, most=5)["CanarySize"] == one_of_four


def test_a_rollout_may_take_longer_than_it_is_watched_and_is_waited_for() -> None:
    for bake in (0, 3600):
        policy = update_endpoint(replace(SERVING, bake_seconds=bake), 1)["DeploymentConfig"][
            "BlueGreenUpdatePolicy"
        ]
        assert bake < policy["MaximumExecutionTimeoutInSeconds"] <= 28_800
    longest = replace(SERVING, bake_seconds=3600).longest_rollout
    operator = DeployEndpointOperator(task_id="deploy", endpoint_name="dogs", package=None)
    assert operator.wait_timeout.total_seconds() > longest
