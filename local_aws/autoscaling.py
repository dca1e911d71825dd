"""Application Auto Scaling of endpoint variants: targets and policies that really add and remove servers.

Only the namespace "sagemaker" with sagemaker:variant:DesiredInstanceCount exists here. A target-tracking
policy looks at the last minute of its metric every few seconds; AWS wants three such minutes before it
adds and fifteen before it removes instances, so here scaling is quicker. The machine's cores are an upper
limit beside MaxCapacity.
"""

from __future__ import annotations

import logging
import math
import re
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from local_aws.alarms import statistic
from local_aws.context import Context
from local_aws.errors import AwsError, validation_error
from local_aws.json_service import Call, Document, JsonService, Operations
from local_aws.metric_data import values_between
from local_aws.store import Missing, Query, Resource

logger = logging.getLogger(__name__)

operation = Operations("application-autoscaling")

TARGET, POLICY, ACTIVITY = "scalable-target", "scaling-policy", "scaling-activity"
DIMENSION = "sagemaker:variant:DesiredInstanceCount"
PREDEFINED = "SageMakerVariantInvocationsPerInstance"
EVALUATION_SECONDS = 2.0
WINDOW = timedelta(seconds=60)
DEFAULT_COOLDOWN = 300
SCALE_IN_SHARE = 0.9
"""AWS's low alarm of a target-tracking policy rings below 90 % of the target."""

_RESOURCE = re.compile(r"^endpoint/([^/]+)/variant/([^/]+)$")


@dataclass(frozen=True)
class Decision:
    """How many servers a variant shall have, and why."""

    desired: int
    cause: str


def decide(
    current: int, target: float, value: float | None, least: int, most: int, disable_scale_in: bool
) -> Decision | None:
    """What target tracking calls for; None leaves things as they are. `value` is the metric per instance."""
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


class AutoScaling(JsonService):
    """The service and its control loop."""

    def __init__(self, context: Context) -> None:
        super().__init__(operation, context)
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
                    logger.info("policy %s: %s", policy.name, error)
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


@operation("RegisterScalableTarget")
def register_scalable_target(call: Call) -> Document:
    """Register a variant, or change its limits."""
    params = call.params
    endpoint, variant = _check_place(call)
    _check_variant(call, endpoint, variant)
    name = target_name(params["ResourceId"])
    given = {member: value for member, value in params.items() if member != "Tags"}
    try:
        existing = call.context.store.get(TARGET, call.region, name)
    except Missing:
        if "MinCapacity" not in params or "MaxCapacity" not in params:
            raise validation_error(
                "MinCapacity and MaxCapacity are required to register a new target."
            ) from None
        arn = call.arn(f"scalable-target/{uuid.uuid4().hex[:20]}", "application-autoscaling")
        role = (
            "arn:aws:iam::123456789012:role/aws-service-role/sagemaker.application-autoscaling.amazonaws.com/"
            "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"
        )
        document = {"RoleARN": role, **given, "CreationTime": time.time(), "ScalableTargetARN": arn}
        _check_limits(document)
        call.context.store.create(Resource(TARGET, call.region, name, arn, document), params.get("Tags", {}))
        return {"ScalableTargetARN": arn}
    _check_limits({**existing.document, **given})
    call.context.store.update(TARGET, call.region, name, lambda document: document.update(given))
    return {"ScalableTargetARN": existing.arn}


@operation("DeregisterScalableTarget")
def deregister_scalable_target(call: Call) -> None:
    """Remove a target with its policies."""
    target = _target(call)
    for policy in call.context.store.all(POLICY, call.region, parent=target.name):
        _remove_policy(call, policy)
    call.context.store.delete(TARGET, call.region, target.name)


@operation("DescribeScalableTargets")
def describe_scalable_targets(call: Call) -> Document:
    """Targets by resource."""
    wanted = set(call.params.get("ResourceIds", []))
    return _listed(call, TARGET, "ScalableTargets", lambda found: not wanted or found["ResourceId"] in wanted)


@operation("PutScalingPolicy")
def put_scaling_policy(call: Call) -> Document:
    """Add or replace a target-tracking policy, with the two alarms that show what it looks at."""
    params = call.params
    endpoint, variant = _check_place(call)
    target = _target(call)
    configuration = params.get("TargetTrackingScalingPolicyConfiguration")
    if params.get("PolicyType", "TargetTrackingScaling") != "TargetTrackingScaling" or configuration is None:
        raise validation_error("local_aws supports policies of the type TargetTrackingScaling only.")
    _check_metric(configuration)
    name = f"{target.name}:{params['PolicyName']}"
    arn = call.arn(f"scalingPolicy:{uuid.uuid4()}:resource/sagemaker/{params['ResourceId']}", "autoscaling")
    alarms = _put_alarms(call, endpoint, variant, configuration)
    document = {
        **params,
        "PolicyType": "TargetTrackingScaling",
        "Alarms": alarms,
        "CreationTime": time.time(),
    }
    try:
        before = call.context.store.get(POLICY, call.region, name)
    except Missing:
        document["PolicyARN"] = arn
        call.context.store.create(Resource(POLICY, call.region, name, arn, document, parent=target.name))
    else:
        arn = document["PolicyARN"] = before.arn
        call.context.store.update(POLICY, call.region, name, lambda known: known.update(document))
    return {"PolicyARN": arn, "Alarms": alarms}


@operation("DeleteScalingPolicy")
def delete_scaling_policy(call: Call) -> None:
    """Remove a policy and its alarms."""
    name = f"{target_name(call.params['ResourceId'])}:{call.params['PolicyName']}"
    try:
        policy = call.context.store.get(POLICY, call.region, name)
    except Missing:
        raise _not_found(f"No scaling policy found for policy name {call.params['PolicyName']}") from None
    _remove_policy(call, policy)


@operation("DescribeScalingPolicies")
def describe_scaling_policies(call: Call) -> Document:
    """Policies by name and resource."""
    wanted = set(call.params.get("PolicyNames", []))
    return _listed(call, POLICY, "ScalingPolicies", lambda found: not wanted or found["PolicyName"] in wanted)


@operation("DescribeScalingActivities")
def describe_scaling_activities(call: Call) -> Document:
    """What was scaled, newest first."""
    return _listed(call, ACTIVITY, "ScalingActivities", lambda _found: True)


@operation("TagResource")
def tag_resource(call: Call) -> None:
    """Tags of a target."""
    call.context.store.tag(call.params["ResourceARN"], call.params["Tags"])


@operation("UntagResource")
def untag_resource(call: Call) -> None:
    """Tags of a target."""
    call.context.store.untag(call.params["ResourceARN"], call.params["TagKeys"])


@operation("ListTagsForResource")
def list_tags_for_resource(call: Call) -> Document:
    """Tags of a target."""
    return {"Tags": call.context.store.tags(call.params["ResourceARN"])}


def resource_parts(resource_id: str) -> tuple[str, str]:
    """`endpoint/e/variant/v` -> ("e", "v"). Raises ValidationException."""
    match = _RESOURCE.match(resource_id)
    if match is None:
        raise validation_error(
            f"Unsupported resource ID {resource_id}: write endpoint/<name>/variant/<name>."
        )
    return match.group(1), match.group(2)


def target_name(resource_id: str) -> str:
    """The name under which a target is stored."""
    return "/".join(resource_parts(resource_id))


def _check_place(call: Call) -> tuple[str, str]:
    params = call.params
    if params["ServiceNamespace"] != "sagemaker" or params["ScalableDimension"] != DIMENSION:
        raise validation_error(f"local_aws scales only the namespace sagemaker, dimension {DIMENSION}.")
    return resource_parts(params["ResourceId"])


def _check_limits(document: Document) -> None:
    if not 1 <= document["MinCapacity"] <= document["MaxCapacity"]:
        raise validation_error("MinCapacity must be at least 1 and at most MaxCapacity.")


def _check_variant(call: Call, endpoint: str, variant: str) -> None:
    try:
        document = call.context.store.get("endpoint", call.region, endpoint).document
    except Missing:
        document = {}
    names = [item["VariantName"] for item in document.get("ProductionVariants", [])]
    if variant not in names:
        raise validation_error(
            f"No resource endpoint/{endpoint}/variant/{variant} found in service sagemaker."
        )


def _check_metric(configuration: Document) -> None:
    predefined = configuration.get("PredefinedMetricSpecification")
    customized = configuration.get("CustomizedMetricSpecification")
    if (predefined is None) == (customized is None):
        raise validation_error("Give either PredefinedMetricSpecification or CustomizedMetricSpecification.")
    if predefined is not None and predefined["PredefinedMetricType"] != PREDEFINED:
        raise validation_error(f"local_aws knows the predefined metric {PREDEFINED} only.")
    if customized is not None and ("Metrics" in customized or "Statistic" not in customized):
        raise validation_error(
            "local_aws supports customized metrics with one MetricName and a Statistic only."
        )


def _target(call: Call) -> Resource:
    try:
        return call.context.store.get(TARGET, call.region, target_name(call.params["ResourceId"]))
    except Missing:
        raise _not_found(
            f"No scalable target registered for resource ID: {call.params['ResourceId']}"
        ) from None


def _not_found(message: str) -> AwsError:
    return AwsError("ObjectNotFoundException", message)


def _listed(call: Call, kind: str, member: str, wanted: Callable[[Document], bool]) -> Document:
    params = call.params
    if params["ServiceNamespace"] != "sagemaker":
        return {member: []}
    parent = ""
    if "ResourceId" in params and kind != TARGET:
        parent = target_name(params["ResourceId"])
    page = call.context.store.page(
        Query(
            kind,
            call.region,
            parent=parent,
            limit=params.get("MaxResults", 50),
            token=params.get("NextToken", ""),
        )
    )
    answer: Document = {member: [item.document for item in page.resources if wanted(item.document)]}
    if page.next_token:
        answer["NextToken"] = page.next_token
    return answer


def _metric_place(
    configuration: Document, endpoint: str, variant: str
) -> tuple[str, str, dict[str, str], str]:
    custom = configuration.get("CustomizedMetricSpecification")
    if custom is not None:
        dimensions = {item["Name"]: item["Value"] for item in custom.get("Dimensions", [])}
        return custom["Namespace"], custom["MetricName"], dimensions, custom["Statistic"]
    place = {"EndpointName": endpoint, "VariantName": variant}
    return "AWS/SageMaker", "InvocationsPerInstance", place, "Sum"


def _metric(region: str, configuration: Document, endpoint: str, variant: str, now: datetime) -> float | None:
    namespace, name, dimensions, kind = _metric_place(configuration, endpoint, variant)
    end = now + timedelta(seconds=1)
    return statistic(kind, values_between(region, namespace, name, dimensions, end - WINDOW, end))


def _put_alarms(call: Call, endpoint: str, variant: str, configuration: Document) -> list[dict[str, Any]]:
    namespace, name, dimensions, kind = _metric_place(configuration, endpoint, variant)
    cloudwatch = call.context.client("cloudwatch", call.region)
    alarms = []
    for side, comparison, share in (
        ("AlarmHigh", "GreaterThanThreshold", 1.0),
        ("AlarmLow", "LessThanThreshold", SCALE_IN_SHARE),
    ):
        alarm = f"TargetTracking-endpoint/{endpoint}/variant/{variant}-{side}"
        cloudwatch.put_metric_alarm(
            AlarmName=alarm,
            AlarmDescription="DO NOT EDIT OR DELETE. For TargetTrackingScaling policy.",
            Namespace=namespace,
            MetricName=name,
            Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
            Statistic=kind,
            Period=60,
            EvaluationPeriods=1,
            Threshold=configuration["TargetValue"] * share,
            ComparisonOperator=comparison,
        )
        alarms.append({"AlarmName": alarm, "AlarmARN": call.arn(f"alarm:{alarm}", "cloudwatch")})
    return alarms


def _remove_policy(call: Call, policy: Resource) -> None:
    names = [alarm["AlarmName"] for alarm in policy.document["Alarms"]]
    call.context.client("cloudwatch", call.region).delete_alarms(AlarmNames=names)
    call.context.store.delete(POLICY, call.region, policy.name)
