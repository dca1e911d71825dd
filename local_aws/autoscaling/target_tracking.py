"""Target tracking: reads the metric of each scaling policy and changes the number of servers.

A loop reads the last minute of the metric every few seconds; AWS wants three such minutes before it adds
and fifteen before it removes instances, so here scaling is quicker. The machine's cores are an upper
limit next to MaxCapacity.
"""

from __future__ import annotations

import logging
import math
import re
import threading
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from botocore.exceptions import BotoCoreError, ClientError

from local_aws.cloudwatch.alarms import statistic
from local_aws.cloudwatch.metric_data import values_between
from local_aws.context import Context
from local_aws.errors import validation_error
from local_aws.gateway.json_service import Document
from local_aws.state.resources import Missing, Resource

logger = logging.getLogger(__name__)

TARGET, POLICY, ACTIVITY = "scalable-target", "scaling-policy", "scaling-activity"
DIMENSION = "sagemaker:variant:DesiredInstanceCount"
EVALUATION_SECONDS = 2.0
WINDOW = timedelta(seconds=60)
DEFAULT_COOLDOWN = 300
SCALE_IN_SHARE = 0.9
"""AWS's low alarm of a target-tracking policy rings below 90 % of the target."""

_RESOURCE = re.compile(r"^endpoint/([^/]+)/variant/([^/]+)$")


@dataclass(frozen=True)
class Decision:
    """The instance count that a variant shall have, and the reason."""

    desired: int
    cause: str


def decide(
    current: int, target: float, value: float | None, least: int, most: int, disable_scale_in: bool
) -> Decision | None:
    """Return the change that target tracking requires, or None. `value` is the metric per instance."""
    if current < least:
        return Decision(least, "below MinCapacity")
    if current > most:
        return Decision(most, "above MaxCapacity")
    load = value or 0.0
    if load > target:
        desired = min(most, max(current + 1, math.ceil(current * load / target)))
        if desired > current:
            return Decision(desired, f"{load:g} is above the target {target:g}")
    elif load < target * SCALE_IN_SHARE and not disable_scale_in:
        desired = max(least, math.ceil(current * load / target), 1)
        if desired < current:
            return Decision(desired, f"{load:g} is below {SCALE_IN_SHARE:.0%} of the target {target:g}")
    return None


class Scaling:
    """Makes scaling and deregistering take turns: once a target is gone, no decision made before still scales it."""

    def __init__(self) -> None:
        self.turn = threading.Lock()


class TargetTracking:
    """The loop."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._thread = threading.Thread(target=self._run, name="autoscaling", daemon=True)

    def start(self) -> None:
        """Begin to scale."""
        self._thread.start()

    def _run(self) -> None:
        while not self._context.stopping.wait(EVALUATION_SECONDS):
            for policy in self._context.store.all(POLICY):
                try:
                    self._apply(policy)
                except (ClientError, BotoCoreError, Missing) as error:
                    logger.debug("policy %s: %s", policy.name, error)
                except Exception:
                    logger.exception("policy %s could not be applied", policy.name)

    def _apply(self, policy: Resource) -> None:
        document, region = policy.document, policy.region
        configuration = document.get("TargetTrackingScalingPolicyConfiguration")
        if configuration is None:
            return
        target = self._context.store.get(TARGET, region, target_name(document["ResourceId"])).document
        suspended = target.get("SuspendedState", {})
        endpoint, variant = resource_parts(document["ResourceId"])
        sagemaker = self._context.client("sagemaker", region)
        description = sagemaker.describe_endpoint(EndpointName=endpoint)
        summary = next(item for item in description["ProductionVariants"] if item["VariantName"] == variant)
        if description["EndpointStatus"] != "InService":
            return
        current = summary["DesiredInstanceCount"]
        most = max(target["MinCapacity"], min(target["MaxCapacity"], self._context.settings.cores))
        now = datetime.now(UTC)
        decision = decide(
            current,
            configuration["TargetValue"],
            _metric(region, configuration, endpoint, variant, now),
            target["MinCapacity"],
            most,
            configuration.get("DisableScaleIn", False),
        )
        if decision is None:
            return
        out = decision.desired > current
        if suspended.get("DynamicScalingOutSuspended" if out else "DynamicScalingInSuspended"):
            return
        cooldown = configuration.get("ScaleOutCooldown" if out else "ScaleInCooldown", DEFAULT_COOLDOWN)
        if time.time() - target.get("_Scaled", 0.0) < cooldown:
            return
        self.take_turn(policy, decision, current)

    def take_turn(self, policy: Resource, decision: Decision, current: int) -> None:
        """Scale, unless the target was deregistered since it was read: a deployment then decides on the number."""
        with self._context.part(Scaling).turn:
            try:
                self._context.store.get(TARGET, policy.region, target_name(policy.document["ResourceId"]))
            except Missing:
                return
            self._scale(policy, decision, current)

    def _scale(self, policy: Resource, decision: Decision, current: int) -> None:
        store, region = self._context.store, policy.region
        endpoint, variant = resource_parts(policy.document["ResourceId"])
        begun = time.time()
        self._context.client("sagemaker", region).update_endpoint_weights_and_capacities(
            EndpointName=endpoint,
            DesiredWeightsAndCapacities=[{"VariantName": variant, "DesiredInstanceCount": decision.desired}],
        )
        store.update(
            TARGET,
            region,
            target_name(policy.document["ResourceId"]),
            lambda document: document.update(_Scaled=begun),
        )
        activity = str(uuid.uuid4())
        document = {
            "ActivityId": activity,
            "ServiceNamespace": "sagemaker",
            "ResourceId": policy.document["ResourceId"],
            "ScalableDimension": DIMENSION,
            "Description": f"Setting desired instance count to {decision.desired}.",
            "Cause": f"policy {policy.document['PolicyName']}: {decision.cause} (there were {current})",
            "StartTime": begun,
            "EndTime": time.time(),
            "StatusCode": "Successful",
            "StatusMessage": f"Successfully set desired instance count to {decision.desired}.",
        }
        arn = self._context.arn(region, f"scalingActivity:{activity}", "autoscaling")
        store.create(Resource(ACTIVITY, region, activity, arn, document, parent=policy.parent))
        logger.info("endpoint %s, variant %s: %d -> %d servers", endpoint, variant, current, decision.desired)


def resource_parts(resource_id: str) -> tuple[str, str]:
    """`endpoint/e/variant/v` -> ("e", "v"). Raises ValidationException."""
    match = _RESOURCE.match(resource_id)
    if match is None:
        raise validation_error(
            f"Unsupported resource ID {resource_id}: write endpoint/<name>/variant/<name>."
        )
    return match.group(1), match.group(2)


def target_name(resource_id: str) -> str:
    """Return the name under which a target is stored."""
    return "/".join(resource_parts(resource_id))


def metric_place(
    configuration: Document, endpoint: str, variant: str
) -> tuple[str, str, dict[str, str], str]:
    """Return the namespace, name, dimensions and statistic of the metric that a policy tracks."""
    custom = configuration.get("CustomizedMetricSpecification")
    if custom is not None:
        dimensions = {item["Name"]: item["Value"] for item in custom.get("Dimensions", [])}
        return custom["Namespace"], custom["MetricName"], dimensions, custom["Statistic"]
    place = {"EndpointName": endpoint, "VariantName": variant}
    return "AWS/SageMaker", "InvocationsPerInstance", place, "Sum"


def _metric(region: str, configuration: Document, endpoint: str, variant: str, now: datetime) -> float | None:
    namespace, name, dimensions, kind = metric_place(configuration, endpoint, variant)
    end = now + timedelta(seconds=1)
    return statistic(kind, values_between(region, namespace, name, dimensions, end - WINDOW, end))
