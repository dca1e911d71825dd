"""Alarms that are evaluated and variants that are scaled, by rule and over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from local_aws.autoscaling.target_tracking import decide
from local_aws.cloudwatch.alarms import Definition, composite_state, judge, statistic
from local_aws.sagemaker.endpoints.rollout import plan
from tests.local_aws.cloud import Cloud, eventually, unique
from tests.local_aws.serving import Deployment


@pytest.mark.parametrize(
    ("points", "missing", "periods", "needed", "expected"),
    [
        ([5.0], "missing", 1, 1, "ALARM"),
        ([1.0], "missing", 1, 1, "OK"),
        ([None], "missing", 1, 1, "INSUFFICIENT_DATA"),
        ([None], "ignore", 1, 1, None),
        ([None], "breaching", 1, 1, "ALARM"),
        ([None], "notBreaching", 1, 1, "OK"),
        ([5.0, 1.0, 5.0], "missing", 3, 2, "ALARM"),
        ([5.0, None, 5.0], "missing", 2, 2, "ALARM"),
        ([5.0, None, 1.0], "notBreaching", 3, 1, "ALARM"),
        ([1.0, 5.0], "missing", 1, 1, "OK"),
    ],
)
def test_alarm_states(
    points: list[float | None], missing: str, periods: int, needed: int, expected: str
) -> None:
    definition = Definition("GreaterThanThreshold", 2.0, periods, needed, missing)
    assert judge(definition, points)[0] == expected


def test_statistics() -> None:
    data = [(10.0, 2.0, 4.0, 6.0), (1.0, 1.0, 1.0, 1.0)]
    names = ("Sum", "SampleCount", "Average", "Minimum", "Maximum")
    assert [statistic(name, data) for name in names] == [11.0, 3.0, 11.0 / 3, 1.0, 6.0]
    assert statistic("Sum", []) is None


def test_composite_rules() -> None:
    states = {"a": "ALARM", "b": "OK"}
    assert composite_state('ALARM("a") AND NOT ALARM(b)', states)
    assert not composite_state("(ALARM(a) AND ALARM(b)) OR INSUFFICIENT_DATA(a)", states)
    assert composite_state("TRUE", {})
    with pytest.raises(ValueError, match="cannot read"):
        composite_state("__import__('os')", {})


@pytest.mark.parametrize(
    ("current", "value", "desired"),
    [
        (1, 25.0, 3),
        (3, 10.0, None),
        (3, 9.5, None),
        (3, 3.0, 1),
        (2, None, 1),
        (0, 0.0, 1),
        (9, 10.0, 4),
        (4, 50.0, None),
    ],
)
def test_target_tracking(current: int, value: float | None, desired: int | None) -> None:
    decision = decide(current, 10.0, value, 1, 4, disable_scale_in=False)
    assert (decision.desired if decision else None) == desired


def test_scale_in_can_be_switched_off() -> None:
    assert decide(3, 10.0, 0.0, 1, 4, disable_scale_in=True) is None


def size(percent: int) -> dict[str, Any]:
    return {"Type": "CAPACITY_PERCENT", "Value": percent}


def test_rollout_plans() -> None:
    def fractions(routing: dict[str, Any]) -> list[float]:
        policy = {
            "BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": {"WaitIntervalInSeconds": 5, **routing}}
        }
        return [step.fraction for step in plan(policy, 4, 4).steps]

    assert fractions({"Type": "ALL_AT_ONCE"}) == [1.0]
    assert fractions({"Type": "CANARY", "CanarySize": size(10)}) == [0.1, 1.0]
    assert fractions({"Type": "CANARY", "CanarySize": {"Type": "INSTANCE_COUNT", "Value": 1}}) == [0.25, 1.0]
    assert fractions({"Type": "LINEAR", "LinearStepSize": size(50)}) == [0.5, 1.0]
    with pytest.raises(Exception, match="CanarySize"):
        fractions({"Type": "CANARY"})
    assert plan(None, 1, 1).steps[0].seconds == 0


def test_traffic_adds_servers_and_silence_removes_them(cloud: Cloud) -> None:
    deployment = Deployment(cloud)
    deployment.deploy("1")
    scaling = cloud.client("application-autoscaling")
    place = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{deployment.endpoint}/variant/v0",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    policy = {
        "TargetValue": 5.0,
        "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
        "ScaleOutCooldown": 0,
        "ScaleInCooldown": 0,
    }
    with pytest.raises(ClientError) as error:
        scaling.put_scaling_policy(
            **place,
            PolicyName="p",
            PolicyType="TargetTrackingScaling",
            TargetTrackingScalingPolicyConfiguration=policy,
        )
    assert error.value.response["Error"]["Code"] == "ObjectNotFoundException"
    with pytest.raises(ClientError) as error:
        scaling.register_scalable_target(
            **{**place, "ResourceId": "endpoint/none/variant/v"}, MinCapacity=1, MaxCapacity=2
        )
    assert error.value.response["Error"]["Code"] == "ValidationException"
    scaling.register_scalable_target(**place, MinCapacity=1, MaxCapacity=2)
    for _ in range(20):
        deployment.ask()
    put = scaling.put_scaling_policy(
        **place,
        PolicyName="p",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration=policy,
    )
    assert len(put["Alarms"]) == 2

    def servers() -> int:
        return int(deployment.describe()["ProductionVariants"][0]["CurrentInstanceCount"])

    eventually(lambda: servers() == 2)
    deployment.settled()
    assert len({deployment.ask()["process"] for _ in range(8)}) == 2
    activity = scaling.describe_scaling_activities(ServiceNamespace="sagemaker")["ScalingActivities"][0]
    assert activity["StatusCode"] == "Successful"
    policy["TargetValue"] = 10_000.0
    scaling.put_scaling_policy(
        **place,
        PolicyName="p",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration=policy,
    )
    eventually(lambda: servers() == 1)
    scaling.deregister_scalable_target(**place)
    assert scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"] == []
    deployment.settled()
    deployment.delete()


def test_alarms_tell_sns_and_stay_as_set(cloud: Cloud) -> None:
    cloudwatch = cloud.client("cloudwatch")
    name = unique("alarm")
    cloudwatch.put_metric_alarm(
        AlarmName=name,
        Namespace="Photos",
        MetricName="Errors",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
    )

    def state() -> str:
        return str(cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"][0]["StateValue"])

    eventually(lambda: state() == "INSUFFICIENT_DATA")
    cloudwatch.put_metric_data(Namespace="Photos", MetricData=[{"MetricName": "Errors", "Value": 3.0}])
    eventually(lambda: state() == "ALARM")
