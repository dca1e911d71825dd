"""CreateModel, CreateEndpointConfig, CreateEndpoint, UpdateEndpoint, and the alarms that roll an update back."""

from __future__ import annotations

from dataclasses import dataclass

from ml_pipeline.requests import names, preferences
from ml_pipeline.requests.network import OPEN, Network
from ml_pipeline.requests.types import Document, Tags

# A new config must keep the variant's name, or UpdateEndpoint cannot shift traffic.
VARIANT = "main"
# Half of the rate of one ml.m5.large (about 30 photos a second, mobilenet_v2): headroom until the next one is up.
INVOCATIONS_PER_MINUTE = 900.0
# Tag of models, configs and endpoints with the endpoint that they were made for.
ENDPOINT_TAG = "endpoint"
# Tags of models, configs and endpoints with the data set version that the model was trained on.
DATASET_TAG, VERSION_TAG = "dataset", "dataset_version"
# Time of a rollout beyond its bake time, for instances and containers to start.
_START_SECONDS = 3600


@dataclass(frozen=True)
class Capture:
    """The share of requests and answers that an endpoint keeps (SageMaker data capture).

    Attributes:
        percent: Share of requests, 1-100.
        uri: Prefix under which SageMaker writes `<endpoint>/<variant>/yyyy/mm/dd/hh/*.jsonl`.
        key: KMS key; None: the bucket's own.
    """

    percent: int
    uri: str
    key: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.percent <= 100:
            raise ValueError(f"capture_percent is {self.percent}; SageMaker takes 1 to 100, and 0 is off")

    def config(self) -> Document:
        """Return DataCaptureConfig. Photos are bytes, so no content type is named as text."""
        return {
            "EnableCapture": True,
            "InitialSamplingPercentage": self.percent,
            "DestinationS3Uri": self.uri,
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
            **({"KmsKeyId": self.key} if self.key else {}),
        }


CAPTURE_DAYS = (7, 30, 90)
"""Retentions that infra/storage.yaml has a rule for: captures of the same retention share a prefix."""


def capture_of(
    bucket: str, percent: int | str, days: int | str | None, key: str | None = None
) -> Capture | None:
    """Return the capture that the params ask for; without a retention (None or 0 days), None.

    Raises:
        ValueError: No rule of the bucket deletes after that number of days.
    """
    if days in (None, "", "None", 0, "0"):
        return None
    if int(days) not in CAPTURE_DAYS:  # type: ignore[arg-type]
        raise ValueError(f"capture_days is {days}; choose one of {', '.join(map(str, CAPTURE_DAYS))}")
    return Capture(int(percent), f"s3://{bucket}/captures/{int(days)}d", key)  # type: ignore[arg-type]


def captured(config: Document) -> tuple[int, int]:
    """Return percent and days of the capture of an endpoint config; days is 0 where it keeps nothing."""
    capture = config.get("DataCaptureConfig") or {}
    days = capture.get("DestinationS3Uri", "").rstrip("/").rpartition("/")[2].removesuffix("d")
    if not capture.get("EnableCapture") or not days.isdigit() or int(days) not in CAPTURE_DAYS:
        return 100, 0
    return int(capture["InitialSamplingPercentage"]), int(days)


@dataclass(frozen=True)
class Serving:
    """A model, and the instances that serve it.

    Attributes:
        endpoint_name: The endpoint's name, stable over all versions of the model.
        model_uri: model.tar.gz.
        instance_type: "ml.m5.large", or several; see `preferences`.
        max_count: Above instance_count, the endpoint scales up to this with its load.
        canary_percent: Share of the fleet that takes traffic first, 5-50; needs two instances or more.
        bake_seconds: Time that the canary (or the whole new fleet) is watched before the rollout goes on.
        latency_alarm_ms: p99 model latency that rolls an update back.
        error_alarm: 5xx answers within a minute that roll an update back.
        network: See `Network`.
        capture: What is kept of requests and answers; None: nothing.
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
    capture: Capture | None = None

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
        """The model's name, hashed from its parts."""
        parts = (self.model_uri, self.image, self.role_arn, self.network.vpc)
        return names.content_name(self.endpoint_name, *parts)

    @property
    def config_name(self) -> str:
        """The endpoint config's name, hashed from the model and its instances."""
        parts = [self.model_name, self.instance_type, self.instance_count, self.network.volume_key]
        if self.capture:  # without it, the names of endpoints that exist stay as they are
            parts += [self.capture.percent, self.capture.uri, self.capture.key]
        return names.content_name(self.endpoint_name, *parts)

    @property
    def scales(self) -> bool:
        """True if the load decides on the number of instances."""
        return self.max_count > self.instance_count

    @property
    def longest_rollout(self) -> int:
        """Seconds after which an update is rolled back: more than all of its waits, 28,800 at most."""
        return _START_SECONDS + 2 * self.bake_seconds

    @property
    def alarm_names(self) -> list[str]:
        """Names of the alarms that watch an update."""
        return [names.alarm(self.endpoint_name, kind) for kind in ("5xx", "latency")]


def model(serving: Serving, tags: Tags = ()) -> Document:
    """Build the request of CreateModel. A model is isolated: it has no reason to call out."""
    return {
        "ModelName": serving.model_name,
        "PrimaryContainer": {
            "Image": serving.image,
            "ModelDataUrl": serving.model_uri,
            # Heat maps, for who asks for one: the console and make predict do.
            "Environment": {"SERVE_EXPLAIN": "true"},
        },
        "ExecutionRoleArn": serving.role_arn,
        "EnableNetworkIsolation": True,
        "Tags": list(tags),
        **({"VpcConfig": serving.network.vpc} if serving.network.vpc else {}),
    }


def endpoint_config(serving: Serving, tags: Tags = ()) -> Document:
    """Build the request of CreateEndpointConfig."""
    return {
        "EndpointConfigName": serving.config_name,
        "ProductionVariants": [
            {
                "VariantName": VARIANT,
                "ModelName": serving.model_name,
                "InitialInstanceCount": serving.instance_count,
                **preferences.of_variant(serving.instance_type),
                "InitialVariantWeight": 1.0,
                "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
            }
        ],
        "Tags": list(tags),
        **serving.network.volume(serving.instance_type, "KmsKeyId"),
        **({"DataCaptureConfig": serving.capture.config()} if serving.capture else {}),
    }


def create_endpoint(serving: Serving, tags: Tags = ()) -> Document:
    """Build the request of CreateEndpoint: with nothing live, there is no traffic to shift."""
    return {
        "EndpointName": serving.endpoint_name,
        "EndpointConfigName": serving.config_name,
        "Tags": list(tags),
    }


def update_endpoint(serving: Serving, instances: int) -> Document:
    """Build the request of UpdateEndpoint: blue/green, a canary first where the fleet is large enough.

    Args:
        serving: The deployment that is asked for.
        instances: Instances of the live variant, which an endpoint that scales keeps. A canary is at most half of
            the fleet, so a single instance has none: all traffic then moves at once, to a fleet that is already up,
            and moves back if an alarm goes off.
    """
    fleet = instances if serving.scales else serving.instance_count
    routing: Document = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": serving.bake_seconds}
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
        # Keep the count that autoscaling chose; without scaling, the config's count holds.
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


def resize(serving: Serving) -> Document:
    """Build the request of UpdateEndpointWeightsAndCapacities: another number of instances, without a rollout."""
    count = {"VariantName": VARIANT, "DesiredInstanceCount": serving.instance_count}
    return {"EndpointName": serving.endpoint_name, "DesiredWeightsAndCapacities": [count]}


def scalable_target(endpoint_name: str) -> dict[str, str]:
    """Return the keys that identify the endpoint to Application Auto Scaling."""
    return {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{endpoint_name}/variant/{VARIANT}",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }


def autoscaling(serving: Serving) -> tuple[Document, Document]:
    """Build the requests of RegisterScalableTarget and PutScalingPolicy: a target of calls per minute and instance."""
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


def alarms(serving: Serving) -> list[Document]:
    """Build the requests of PutMetricAlarm; the alarms must exist before an update names them."""
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
