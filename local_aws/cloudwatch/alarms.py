"""CloudWatch alarms: moto keeps them, this module evaluates their metrics and changes their state.

Single-metric alarms with a plain statistic, and composite alarms over them, are evaluated every second
over windows that end now, so that a threshold crossed shows within a second rather than at the end of a
full period. A state set by SetAlarmState stays for one period, then the metric speaks again. Alarms on
metric math, anomaly bands or percentiles stay INSUFFICIENT_DATA, with that reason.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from moto.cloudwatch.models import Alarm, cloudwatch_backends

from local_aws.cloudwatch.metric_data import values_between
from local_aws.context import Context
from local_aws.gateway.responses import Environ, StartResponse, WsgiApp
from local_aws.settings import ACCOUNT_ID

logger = logging.getLogger(__name__)

EVALUATION_SECONDS = 1.0
EXTRA_PERIODS = 2
"""CloudWatch looks further back than the evaluation periods when data points are missing."""

OK, ALARM, INSUFFICIENT = "OK", "ALARM", "INSUFFICIENT_DATA"
_OURS = ("Threshold Crossed", "Insufficient Data", "Unchecked", "Composite")

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanOrEqualToThreshold": lambda value, threshold: value >= threshold,
    "GreaterThanThreshold": lambda value, threshold: value > threshold,
    "LessThanThreshold": lambda value, threshold: value < threshold,
    "LessThanOrEqualToThreshold": lambda value, threshold: value <= threshold,
}
_RULE = re.compile(
    r"\s*(AND|OR|NOT|TRUE|FALSE|\(|\)|(ALARM|OK|INSUFFICIENT_DATA)\s*\(\s*\"?([^\")]+)\"?\s*\))\s*"
)


@dataclass(frozen=True)
class Definition:
    """The part of an alarm that decides its state."""

    comparison: str
    threshold: float
    evaluation_periods: int
    datapoints_to_alarm: int
    missing: str = "missing"


def judge(definition: Definition, points: Sequence[float | None]) -> tuple[str | None, str]:
    """Return the state that data points call for, and the reason; None keeps the state.

    Points come newest first, with None for missing ones. Missing data are treated as CloudWatch does:
    "missing" looks further back, "ignore" keeps the state when all are missing.
    """
    window = list(points[: definition.evaluation_periods])
    if definition.missing in ("missing", "ignore"):
        present = [point for point in points if point is not None][: definition.evaluation_periods]
        if not present or all(point is None for point in window):
            if definition.missing == "ignore":
                return None, ""
            return INSUFFICIENT, "Insufficient Data: no datapoints were received"
        judged = [_breaches(definition, point) for point in present]
    else:
        breaching = definition.missing == "breaching"
        judged = [breaching if point is None else _breaches(definition, point) for point in window]
    count = sum(judged)
    values = ", ".join("missing" if point is None else f"{point:g}" for point in window)
    verdict = "was" if count >= definition.datapoints_to_alarm else "was not"
    reason = (
        f"Threshold Crossed: {count} out of the last {len(judged)} datapoints [{values}] {verdict} enough for "
        f"{definition.comparison} {definition.threshold:g} (minimum {definition.datapoints_to_alarm})"
    )
    return (ALARM if count >= definition.datapoints_to_alarm else OK), reason


def statistic(name: str, data: Iterable[tuple[float, float, float, float]]) -> float | None:
    """Sum, Average, Minimum, Maximum or SampleCount of (sum, count, least, most); None without data."""
    rows = list(data)
    if not rows:
        return None
    total, count = sum(row[0] for row in rows), sum(row[1] for row in rows)
    return {
        "Sum": total,
        "SampleCount": count,
        "Average": total / count if count else 0.0,
        "Minimum": min(row[2] for row in rows),
        "Maximum": max(row[3] for row in rows),
    }[name]


def composite_state(rule: str, states: dict[str, str]) -> bool:
    """Evaluate a composite alarm's rule: AND, OR, NOT, brackets, ALARM(name)... Raises ValueError."""
    expression, position = "", 0
    while position < len(rule):
        match = _RULE.match(rule, position)
        if match is None:
            raise ValueError(f"cannot read the alarm rule at {rule[position:]!r}")
        position = match.end()
        word, state, name = match.groups()
        if state:
            expression += f" {states.get(name.strip(), INSUFFICIENT) == state}"
        else:
            expression += f" {word.lower() if word not in ('TRUE', 'FALSE') else word.title()}"
    if not re.fullmatch(r"(\s*(True|False|and|or|not|\(|\)))*", expression):
        raise ValueError(f"cannot read the alarm rule {rule!r}")
    return bool(eval(expression, {"__builtins__": {}}))


class Monitoring:
    """CloudWatch: moto's app, with alarms that live."""

    def __init__(self, context: Context, moto: WsgiApp) -> None:
        self._context = context
        self._moto = moto
        self._thread = threading.Thread(target=self._run, name="alarms", daemon=True)

    def start(self) -> None:
        """Begin to evaluate."""
        self._thread.start()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Hand the request on to moto, which keeps the alarms."""
        return self._moto(environ, start_response)

    def evaluate(self, now: datetime) -> None:
        """Look at every alarm once."""
        for region, backend in list(cloudwatch_backends[ACCOUNT_ID].items()):
            alarms = list(backend.alarms.values())
            for alarm in sorted(alarms, key=lambda alarm: alarm.rule is not None):
                state, reason = self._judge(
                    region, alarm, {other.name: other.state_value for other in alarms}, now
                )
                if state is not None and state != alarm.state_value:
                    before = alarm.state_value
                    alarm.update_state(reason, json.dumps({"evaluated": now.isoformat()}), state)
                    logger.info("alarm %s: %s -> %s", alarm.name, before, state)
                    self._act(region, alarm, before)

    def _judge(
        self, region: str, alarm: Alarm, states: dict[str, str], now: datetime
    ) -> tuple[str | None, str]:
        if _is_held(alarm, now):
            return None, ""
        if alarm.rule:
            try:
                rings = composite_state(alarm.rule, states)
            except ValueError as error:
                return INSUFFICIENT, f"Composite: {error}"
            return (ALARM if rings else OK), f"Composite: {alarm.rule}"
        if not alarm.metric_name or alarm.statistic not in (
            "Sum",
            "Average",
            "Minimum",
            "Maximum",
            "SampleCount",
        ):
            return (
                INSUFFICIENT,
                "Insufficient Data: local_aws evaluates alarms on one metric and a plain statistic",
            )
        periods = int(alarm.evaluation_periods)
        definition = Definition(
            alarm.comparison_operator,
            float(alarm.threshold),
            periods,
            int(alarm.datapoints_to_alarm or periods),
            alarm.treat_missing_data or "missing",
        )
        if definition.comparison not in _COMPARISONS:
            return INSUFFICIENT, f"Insufficient Data: local_aws does not evaluate {definition.comparison}"
        return judge(definition, _points(region, alarm, periods + EXTRA_PERIODS, now))

    def _act(self, region: str, alarm: Alarm, before: str) -> None:
        if not alarm.actions_enabled:
            return
        actions = {
            OK: alarm.ok_actions,
            ALARM: alarm.alarm_actions,
            INSUFFICIENT: alarm.insufficient_data_actions,
        }
        for arn in actions[alarm.state_value] or []:
            if ":sns:" not in arn:
                logger.warning("alarm %s: local_aws does not carry out the action %s", alarm.name, arn)
                continue
            if not self._context.admits("cloudwatch.amazonaws.com", arn, alarm.alarm_arn):
                logger.warning("alarm %s: the policy of %s does not let CloudWatch publish", alarm.name, arn)
                continue
            try:
                self._context.client("sns", region).publish(
                    TopicArn=arn,
                    Subject=f'{alarm.state_value}: "{alarm.name}" in {region}'[:100],
                    Message=json.dumps(_message(region, alarm, before)),
                )
            except (ClientError, BotoCoreError) as error:
                logger.warning("alarm %s could not tell %s: %s", alarm.name, arn, error)

    def _run(self) -> None:
        while not self._context.stopping.wait(EVALUATION_SECONDS):
            try:
                self.evaluate(datetime.now(UTC))
            except Exception:
                logger.exception("alarms could not be evaluated")


def _breaches(definition: Definition, point: float) -> bool:
    return _COMPARISONS[definition.comparison](point, definition.threshold)


def _is_held(alarm: Alarm, now: datetime) -> bool:
    """Return True if a client set the state less than a period ago."""
    if alarm.state_reason.startswith(_OURS):
        return False
    since = now.replace(tzinfo=None) - alarm.state_updated_timestamp.replace(tzinfo=None)
    return since < timedelta(seconds=float(alarm.period or 60))


def _points(region: str, alarm: Alarm, count: int, now: datetime) -> list[float | None]:
    """Statistics of the last `count` periods, newest first."""
    dimensions = {dimension.name: dimension.value for dimension in alarm.dimensions}
    period = timedelta(seconds=float(alarm.period))
    points = []
    end = now + timedelta(seconds=1)
    for _ in range(count):
        data = values_between(region, alarm.namespace, alarm.metric_name, dimensions, end - period, end)
        points.append(statistic(alarm.statistic, data))
        end -= period
    return points


def _message(region: str, alarm: Alarm, before: str) -> dict[str, Any]:
    return {
        "AlarmName": alarm.name,
        "AlarmDescription": alarm.description,
        "AWSAccountId": ACCOUNT_ID,
        "AlarmArn": alarm.alarm_arn,
        "Region": region,
        "NewStateValue": alarm.state_value,
        "OldStateValue": before,
        "NewStateReason": alarm.state_reason,
        "StateChangeTime": time.strftime("%Y-%m-%dT%H:%M:%S.000+0000", time.gmtime()),
        "Trigger": {
            "MetricName": alarm.metric_name,
            "Namespace": alarm.namespace,
            "Statistic": alarm.statistic,
            "Period": alarm.period,
            "EvaluationPeriods": alarm.evaluation_periods,
            "ComparisonOperator": alarm.comparison_operator,
            "Threshold": alarm.threshold,
        },
    }
