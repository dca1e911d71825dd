"""CreateModel, CreateEndpointConfig, CreateEndpoint, UpdateEndpoint, and the alarms that roll an update
back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_pipeline.requests import names
from ml_pipeline.requests.network import OPEN, Network

# A new config must keep the variant's name, or UpdateEndpoint cannot shift traffic.
VARIANT = "main"
# Half of what one ml.m5.large answers (some 30 photos a second, mobilenet_v2): room until the next one is up.
INVOCATIONS_PER_MINUTE = 900.0
# Tag of models, configs and endpoints: the endpoint that they were made for, so that all of them are found.
ENDPOINT_TAG = "endpoint"
# Of a rollout, beside the time that it is watched: machines and containers start.
_START_SECONDS = 3600
Tags = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Serving:
    """What serves and on what.

    Attributes:
        endpoint_name: The endpoint's name, stable over all versions of the model.
        model_uri: model.tar.gz.
        max_count: Above instance_count, the endpoint scales up to this with its load; else instance_count holds.
        canary_percent: Share of the fleet that takes traffic first, 5-50; needs two instances or more.
        bake_seconds: How long the canary (or the whole new fleet) is watched before the rollout goes on.
        latency_alarm_ms: p99 model latency that rolls an update back.
        error_alarm: 5xx answers within a minute that roll an update back.
        network: See `Network`.
    """

    endpoint_name: str
    model_uri: str
    image: str
    role_arn: str
    instance_type: str
    instance_count: int = 1
    max_count: int = 1
    canary_percent: int = 25
    bake_seconds: int = 120
    latency_alarm_ms: int = 2000
    error_alarm: int = 5
    network: Network = OPEN

    def __post_init__(self) -> None:
        if names.slug(self.endpoint_name, names.LIMIT) != self.endpoint_name.lower():
            raise ValueError(
                f"endpoint_name {self.endpoint_name!r} is not one AWS takes: up to 63 letters, digits and "
                "hyphens"
            )
        if not 5 <= self.canary_percent <= 50:
            raise ValueError(f"canary_percent is {self.canary_percent}; SageMaker takes 5 to 50")
        if not 0 <= self.bake_seconds <= 3600:
            raise ValueError(f"bake_seconds is {self.bake_seconds}; SageMaker takes 0 to 3600")

    @property
    def model_name(self) -> str:
        """The model's name: the same parts give the same model."""
        parts = (self.model_uri, self.image, self.role_arn, self.network.vpc)
        return names.content_name(self.endpoint_name, *parts)

    @property
    def config_name(self) -> str:
        """The endpoint config's name: the same model on the same machines is the same config."""
        parts = (self.model_name, self.instance_type, self.instance_count, self.network.volume_key)
        return names.content_name(self.endpoint_name, *parts)

    @property
    def scales(self) -> bool:
        """Whether the load decides on the number of instances."""
        return self.max_count > self.instance_count

    @property
    def longest_rollout(self) -> int:
        """Seconds after which an update is rolled back; SageMaker wants more than all its waiting and takes 28,800."""
        return _START_SECONDS + 2 * self.bake_seconds

    @property
    def alarm_names(self) -> list[str]:
        """The alarms that watch an update."""
        return [f"{self.endpoint_name}-5xx", f"{self.endpoint_name}-latency"]


def model(serving: Serving, tags: Tags = ()) -> dict[str, Any]:
    """The request of CreateModel. Isolated from the network: a model has no reason to call anybody."""
    return {
        "ModelName": serving.model_name,
        "PrimaryContainer": {"Image": serving.image, "ModelDataUrl": serving.model_uri},
        "ExecutionRoleArn": serving.role_arn,
        "EnableNetworkIsolation": True,
        "Tags": list(tags),
        **({"VpcConfig": serving.network.vpc} if serving.network.vpc else {}),
    }


def endpoint_config(serving: Serving, tags: Tags = ()) -> dict[str, Any]:
    """The request of CreateEndpointConfig."""
    return {
        "EndpointConfigName": serving.config_name,
        "ProductionVariants": [
            {
                "VariantName": VARIANT,
                "ModelName": serving.model_name,
                "InitialInstanceCount": serving.instance_count,
                "InstanceType": serving.instance_type,
                "InitialVariantWeight": 1.0,
                "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
            }
        ],
        "Tags": list(tags),
        **serving.network.volume(serving.instance_type, "KmsKeyId"),
    }


def create_endpoint(serving: Serving, tags: Tags = ()) -> dict[str, Any]:
    """The request of CreateEndpoint: nothing is live yet, so there is no traffic to shift."""
    return {
        "EndpointName": serving.endpoint_name,
        "EndpointConfigName": serving.config_name,
        "Tags": list(tags),
    }


def update_endpoint(serving: Serving, instances: int) -> dict[str, Any]:
    """The request of UpdateEndpoint: blue/green, a canary first where the fleet is large enough.

    Args:
        instances: Instances of the live variant, which an endpoint that scales keeps. A canary is at most half of
            the fleet, so one instance has none: then all traffic moves at once, to a fleet that is already up, and
            moves back if an alarm goes off.
    """
    fleet = instances if serving.scales else serving.instance_count
    routing: dict[str, Any] = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": serving.bake_seconds}
    if fleet > 1:
        size = max(1, fleet * serving.canary_percent // 100)
        routing = {
            "Type": "CANARY",
            "CanarySize": {"Type": "INSTANCE_COUNT", "Value": size},
            "WaitIntervalInSeconds": serving.bake_seconds,
        }
    return {
        "EndpointName": serving.endpoint_name,
        "EndpointConfigName": serving.config_name,
        # Keeps the count that autoscaling chose; where nothing scales, the config's count is meant.
        "RetainAllVariantProperties": serving.scales,
        "DeploymentConfig": {
            "BlueGreenUpdatePolicy": {
                "TrafficRoutingConfiguration": routing,
                "TerminationWaitInSeconds": 0,
                "MaximumExecutionTimeoutInSeconds": serving.longest_rollout,
            },
            "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": name} for name in serving.alarm_names]},
        },
    }


def resize(serving: Serving) -> dict[str, Any]:
    """The request of UpdateEndpointWeightsAndCapacities: as many instances as asked for, without a rollout."""
    count = {"VariantName": VARIANT, "DesiredInstanceCount": serving.instance_count}
    return {"EndpointName": serving.endpoint_name, "DesiredWeightsAndCapacities": [count]}


def scalable_target(endpoint_name: str) -> dict[str, str]:
    """What names the endpoint to Application Auto Scaling."""
    return {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{endpoint_name}/variant/{VARIANT}",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }


def autoscaling(serving: Serving) -> tuple[dict[str, Any], dict[str, Any]]:
    """The requests of RegisterScalableTarget and PutScalingPolicy: so many calls per minute and machine."""
    resource = scalable_target(serving.endpoint_name)
    target = {**resource, "MinCapacity": serving.instance_count, "MaxCapacity": serving.max_count}
    policy = {
        **resource,
        "PolicyName": f"{serving.endpoint_name}-invocations",
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": INVOCATIONS_PER_MINUTE,
            "PredefinedMetricSpecification": {
                "PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"
            },
            "ScaleInCooldown": 300,
            "ScaleOutCooldown": 60,
        },
    }
    return target, policy


def alarms(serving: Serving) -> list[dict[str, Any]]:
    """The requests of PutMetricAlarm; the alarms must exist before an update names them."""
    common = {
        "Namespace": "AWS/SageMaker",
        "Dimensions": [
            {"Name": "EndpointName", "Value": serving.endpoint_name},
            {"Name": "VariantName", "Value": VARIANT},
        ],
        "Period": 60,
        "EvaluationPeriods": 1,
        "ComparisonOperator": "GreaterThanThreshold",
        "TreatMissingData": "notBreaching",
    }
    errors, latency = serving.alarm_names
    return [
        {
            **common,
            "AlarmName": errors,
            "AlarmDescription": "The endpoint answers with server errors",
            "MetricName": "Invocation5XXErrors",
            "Statistic": "Sum",
            "Threshold": float(serving.error_alarm),
        },
        {
            **common,
            "AlarmName": latency,
            "AlarmDescription": "The model answers slowly",
            "MetricName": "ModelLatency",
            "ExtendedStatistic": "p99",
            # ModelLatency is in microseconds.
            "Threshold": serving.latency_alarm_ms * 1000.0,
        },
    ]
