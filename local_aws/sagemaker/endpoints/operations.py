"""The operations on endpoints."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

from local_aws.errors import AwsError, validation_error
from local_aws.execution.capacity import check_quota
from local_aws.gateway.json_service import Call, Document
from local_aws.sagemaker.endpoints import configs, rollout
from local_aws.sagemaker.endpoints.endpoint import KIND, Endpoint, Endpoints, first_members, new_plan
from local_aws.sagemaker.endpoints.fleet import Plan, instances
from local_aws.sagemaker.operations import operation
from local_aws.sagemaker.records import Records
from local_aws.state.resources import Resource

RECORDS = Records(
    KIND,
    "Endpoint",
    missing='Could not find endpoint "{arn}".',
    exists='Cannot create already existing endpoint "{arn}".',
)


@operation("CreateEndpoint")
def create_endpoint(call: Call) -> Document:
    """Store the record and start the servers."""
    config = _config(call)
    plan = new_plan(config, configs.containers(call, config))
    _check_quotas(call, instances(plan))
    resource = RECORDS.create_from(call, EndpointStatus="Creating", **first_members(plan))
    _running(call).create()
    return RECORDS.answer(resource)


RECORDS.describes_and_lists("Endpoints")


@operation("UpdateEndpoint")
def update_endpoint(call: Call) -> Document:
    """Roll out a new configuration, blue/green or rolling."""
    params = call.params
    resource = _in_service(call)
    config = _config(call)
    live = resource.document["_Live"]
    deployment = params.get("DeploymentConfig")
    if deployment is None and params.get("RetainDeploymentConfig"):
        deployment = resource.document.get("LastDeploymentConfig")
    old = [variant["VariantName"] for variant in live["config"]["ProductionVariants"]]
    new = [variant["VariantName"] for variant in config["ProductionVariants"]]
    if deployment is not None and set(old) != set(new):
        raise validation_error(
            "With a DeploymentConfig the new endpoint configuration must have the same variants as the current one: "
            f"{', '.join(old)}."
        )
    counts, weights = _retained(call, live["config"], new)
    plan = new_plan(config, configs.containers(call, config), counts, weights)
    _check_quotas(call, instances(plan))
    rollout.plan(deployment, 1, 1)
    _check_alarms(call, deployment)

    def change(document: Document) -> None:
        _require_in_service(call, document)
        document |= {"EndpointStatus": "Updating", "_Next": plan, "LastModifiedTime": time.time()}
        document.pop("FailureReason", None)
        document.pop("_Deployment", None)
        if deployment is not None:
            document["_Deployment"] = deployment
        document["PendingDeploymentSummary"] = _pending(config)

    call.context.store.update(KIND, call.region, resource.name, change)
    _running(call).update()
    return RECORDS.answer(resource)


@operation("UpdateEndpointWeightsAndCapacities")
def update_weights_and_capacities(call: Call) -> Document:
    """Change traffic weights and instance counts of the live configuration."""
    resource = _in_service(call)
    wanted = {item["VariantName"]: item for item in call.params["DesiredWeightsAndCapacities"]}
    config = resource.document["_Live"]["config"]
    known = {variant["VariantName"]: variant for variant in config["ProductionVariants"]}
    for name, item in wanted.items():
        if name not in known:
            raise validation_error(f'Could not find variant "{name}" of endpoint "{resource.arn}".')
        if item.get("DesiredInstanceCount") == 0:
            raise validation_error(f"DesiredInstanceCount of variant {name} must be at least 1.")
        if "ServerlessConfig" in known[name] and "DesiredInstanceCount" in item:
            raise validation_error(f"Variant {name} is serverless: it has no DesiredInstanceCount.")

    def rescale(plan: Plan) -> None:
        for name, item in wanted.items():
            if "DesiredWeight" in item:
                plan["weights"][name] = item["DesiredWeight"]
            if "DesiredInstanceCount" in item:
                plan["counts"][name] = item["DesiredInstanceCount"]

    plan = resource.document["_Live"]
    before = instances(plan)
    rescale(plan)
    _check_quotas(call, instances(plan) - before)

    def change(document: Document) -> None:
        _require_in_service(call, document)
        document["EndpointStatus"] = "Updating"
        rescale(document["_Live"])

    call.context.store.update(KIND, call.region, resource.name, change)
    _running(call).rescale()
    return RECORDS.answer(resource)


@operation("DeleteEndpoint")
def delete_endpoint(call: Call) -> None:
    """Stop the servers and delete the record; refused, as on AWS, while the endpoint changes."""
    resource = RECORDS.of(call)
    before = []

    def change(document: Document) -> None:
        if document["EndpointStatus"] in ("Creating", "Updating", "RollingBack"):
            raise _in_progress(document)
        before.append(document["EndpointStatus"])
        document["EndpointStatus"] = "Deleting"

    call.context.store.update(KIND, call.region, resource.name, change)
    if before != ["Deleting"]:  # a second end could meet the next endpoint of this name
        _running(call).delete()


def _config(call: Call) -> Document:
    return configs.RECORDS.of(call).document


def _in_service(call: Call) -> Resource:
    resource = RECORDS.of(call)
    _require_in_service(call, resource.document)
    return resource


def _require_in_service(call: Call, document: Document) -> None:
    status, arn = document["EndpointStatus"], document["EndpointArn"]
    if status == "Failed":
        raise validation_error(
            f'Cannot update endpoint "{arn}" in status Failed: delete it and create it again.'
        )
    if status != "InService":
        raise _in_progress(document)


def _in_progress(document: Document) -> AwsError:
    """AWS's answer to changes and deletion while the endpoint changes."""
    return validation_error(f'Cannot update in-progress endpoint "{document["EndpointArn"]}".')


def _running(call: Call) -> Endpoint:
    return call.context.part(Endpoints).ensure(call.context, call.region, call.params["EndpointName"])


def _retained(call: Call, live: Document, new: list[str]) -> tuple[Mapping[str, int], Mapping[str, float]]:
    """Return the counts and weights that RetainAllVariantProperties carries over to variants of the same name."""
    if not call.params.get("RetainAllVariantProperties"):
        return {}, {}
    excluded = {
        item["VariantPropertyType"] for item in call.params.get("ExcludeRetainedVariantProperties", [])
    }
    current = {item["VariantName"]: item for item in RECORDS.of(call).document.get("ProductionVariants", [])}
    kept = [name for name in new if name in current]
    instances = {v["VariantName"] for v in live["ProductionVariants"] if "ServerlessConfig" not in v}
    counts = {name: current[name]["DesiredInstanceCount"] for name in kept if name in instances}
    weights = {name: current[name]["DesiredWeight"] for name in kept}
    return (
        {} if "DesiredInstanceCount" in excluded else counts,
        {} if "DesiredWeight" in excluded else weights,
    )


def _check_alarms(call: Call, deployment: Document | None) -> None:
    alarms = (deployment or {}).get("AutoRollbackConfiguration", {}).get("Alarms", [])
    names = [alarm["AlarmName"] for alarm in alarms]
    if not names:
        return
    found = call.context.client("cloudwatch", call.region).describe_alarms(
        AlarmNames=names, AlarmTypes=["MetricAlarm", "CompositeAlarm"]
    )
    known = {
        alarm["AlarmName"] for kind in ("MetricAlarms", "CompositeAlarms") for alarm in found.get(kind, [])
    }
    missing = [name for name in names if name not in known]
    if missing:
        raise validation_error(
            f"Could not find the CloudWatch alarms {', '.join(missing)}: create them first."
        )


def _pending(config: Document) -> Document:
    return {
        "EndpointConfigName": config["EndpointConfigName"],
        "StartTime": time.time(),
        "ProductionVariants": [
            {
                "VariantName": variant["VariantName"],
                "DesiredWeight": variant.get("InitialVariantWeight", 1.0),
                "DesiredInstanceCount": variant.get("InitialInstanceCount", 0),
            }
            for variant in config["ProductionVariants"]
        ],
    }


def _check_quotas(call: Call, wanted: Mapping[str, int]) -> None:
    """Refuse instances beyond the quota of endpoints; an update counts both fleets.

    Raises:
        AwsError: ResourceLimitExceeded.
    """
    quotas = call.context.settings.quotas
    if not quotas:
        return
    in_use: Counter[str] = Counter()
    for resource in call.context.store.all(KIND, call.region):
        if resource.status != "Failed":
            for member in ("_Live", "_Next"):
                in_use += instances(resource.document.get(member))
    for instance_type, count in wanted.items():
        check_quota(quotas, instance_type, in_use[instance_type], count, "endpoint")
