"""Blue/green and rolling updates: pure functions from a DeploymentConfig to traffic steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from local_aws.errors import validation_error

MAXIMUM_SECONDS = 28_800
LARGEST_CANARY_PERCENT = 50


@dataclass(frozen=True)
class Step:
    """Send `fraction` of the traffic to the new fleet, then watch the alarms for `seconds`."""

    fraction: float
    seconds: float


@dataclass(frozen=True)
class Rollout:
    """The traffic steps of an update.

    Attributes:
        steps: In order; the last has fraction 1.
        termination_seconds: Wait before the old fleet ends.
        alarms: Names of the alarms that roll the update back.
        maximum_seconds: Time limit of the whole update.
    """

    steps: tuple[Step, ...]
    termination_seconds: float = 0.0
    alarms: tuple[str, ...] = ()
    maximum_seconds: float = MAXIMUM_SECONDS


def plan(config: dict[str, Any] | None, old_instances: int, new_instances: int) -> Rollout:
    """Plan the rollout of a DeploymentConfig; without one, all traffic moves at once.

    Sizes given as INSTANCE_COUNT are fractions of the new fleet's instances.

    Raises:
        AwsError: ValidationException for an incomplete policy.
    """
    if not config:
        return Rollout((Step(1.0, 0.0),))
    alarms = tuple(
        alarm["AlarmName"] for alarm in config.get("AutoRollbackConfiguration", {}).get("Alarms", [])
    )
    rolling, blue_green = config.get("RollingUpdatePolicy"), config.get("BlueGreenUpdatePolicy")
    if rolling:
        size = _fraction(rolling["MaximumBatchSize"], max(old_instances, new_instances))
        steps = _linear(size, rolling["WaitIntervalInSeconds"])
        limit = rolling.get("MaximumExecutionTimeoutInSeconds", MAXIMUM_SECONDS)
        return Rollout(steps, float(rolling["WaitIntervalInSeconds"]), alarms, limit)
    if not blue_green:
        return Rollout((Step(1.0, 0.0),), alarms=alarms)
    routing = blue_green["TrafficRoutingConfiguration"]
    return Rollout(
        _steps(routing, new_instances),
        float(blue_green.get("TerminationWaitInSeconds", 0)),
        alarms,
        blue_green.get("MaximumExecutionTimeoutInSeconds", MAXIMUM_SECONDS),
    )


def _steps(routing: dict[str, Any], instances: int) -> tuple[Step, ...]:
    kind, wait = routing["Type"], float(routing["WaitIntervalInSeconds"])
    if kind == "ALL_AT_ONCE":
        return (Step(1.0, wait),)
    if kind == "CANARY":
        if "CanarySize" not in routing:
            raise validation_error("CanarySize is required when the traffic routing type is CANARY.")
        fraction = _fraction(routing["CanarySize"], instances)
        if routing["CanarySize"]["Type"] == "CAPACITY_PERCENT" and fraction * 100 > LARGEST_CANARY_PERCENT:
            raise validation_error(
                f"CanarySize must be at most {LARGEST_CANARY_PERCENT} percent of the fleet."
            )
        return (Step(fraction, wait), Step(1.0, 0.0))
    if "LinearStepSize" not in routing:
        raise validation_error("LinearStepSize is required when the traffic routing type is LINEAR.")
    return _linear(_fraction(routing["LinearStepSize"], instances), wait)


def _linear(size: float, wait: float) -> tuple[Step, ...]:
    steps = []
    fraction = size
    while fraction < 1 - 1e-9:
        steps.append(Step(fraction, wait))
        fraction += size
    return (*steps, Step(1.0, 0.0))


def _fraction(size: dict[str, Any], instances: int) -> float:
    if size["Type"] == "CAPACITY_PERCENT":
        return min(1.0, size["Value"] / 100)
    return min(1.0, size["Value"] / max(1, instances))
