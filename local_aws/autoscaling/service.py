"""Application Auto Scaling of endpoint variants: scalable targets and their policies.

`target_tracking` applies the policies. Only the namespace "sagemaker" with
sagemaker:variant:DesiredInstanceCount, and policies of the type TargetTrackingScaling, exist here; anything
else is refused.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

from local_aws.autoscaling.target_tracking import (
    ACTIVITY,
    DIMENSION,
    POLICY,
    SCALE_IN_SHARE,
    TARGET,
    Scaling,
    TargetTracking,
    metric_place,
    resource_parts,
    target_name,
)
from local_aws.context import Context
from local_aws.errors import AwsError, validation_error
from local_aws.gateway.json_service import Call, Document, JsonService, Operations
from local_aws.state.resources import Missing, Query, Resource

operation = Operations("application-autoscaling")

PREDEFINED = "SageMakerVariantInvocationsPerInstance"


class AutoScaling(JsonService):
    """The service and its control loop."""

    def __init__(self, context: Context) -> None:
        super().__init__(operation, context)
        self._tracking = TargetTracking(context)

    def start(self) -> None:
        """Begin to scale."""
        self._tracking.start()


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
    with call.context.part(Scaling).turn:
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
    """List scaling activities, newest first."""
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


def _put_alarms(call: Call, endpoint: str, variant: str, configuration: Document) -> list[dict[str, Any]]:
    namespace, name, dimensions, kind = metric_place(configuration, endpoint, variant)
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
