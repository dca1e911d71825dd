"""Metrics of local_aws itself in CloudWatch, where clients read them like their own.

They go straight into moto's CloudWatch, in sums of ten seconds, rather than through PutMetricData: at one
value per invocation that would be most of the work of an invocation.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from moto.cloudwatch.models import CloudWatchBackend, MetricAggregatedDatum, cloudwatch_backends

from local_aws.settings import ACCOUNT_ID

RESOLUTION_SECONDS = 10
KEPT = timedelta(hours=6)


@dataclass(frozen=True)
class Metric:
    """Identity of a metric. dimensions: (name, value) pairs in order."""

    region: str
    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...]
    unit: str = "None"


class MetricData:
    """Sums of values by metric and time. Thread-safe."""

    def __init__(self) -> None:
        self._open: dict[Metric, MetricAggregatedDatum] = {}
        self._lock = threading.Lock()
        self._pruned = datetime.now(UTC)

    def add(self, values: Mapping[Metric, float], now: datetime | None = None) -> None:
        """Take one value of each metric."""
        now = now or datetime.now(UTC)
        begin = now.replace(microsecond=0, tzinfo=None) - timedelta(seconds=now.second % RESOLUTION_SECONDS)
        with self._lock:
            for metric, value in values.items():
                datum = self._open.get(metric)
                if datum is None or datum.timestamp != begin:
                    datum = self._open[metric] = _new(metric, value, begin)
                    backend(metric.region).metric_data.append(datum)
                    continue
                datum.sum += value
                datum.sample_count += 1
                datum.min, datum.max = min(datum.min, value), max(datum.max, value)
            if now - self._pruned > KEPT / 100:
                self._prune(now)

    def _prune(self, now: datetime) -> None:
        self._pruned = now
        oldest = (now - KEPT).replace(tzinfo=None)
        for region in {metric.region for metric in self._open}:
            kept = backend(region)
            kept.metric_data = [
                datum
                for datum in kept.metric_data
                if not isinstance(datum, MetricAggregatedDatum)
                or datum.timestamp.replace(tzinfo=None) > oldest
            ]


def backend(region: str) -> CloudWatchBackend:
    """Return moto's CloudWatch of a region."""
    return cloudwatch_backends[ACCOUNT_ID][region]


def values_between(
    region: str, namespace: str, name: str, dimensions: Mapping[str, str], begin: datetime, end: datetime
) -> list[tuple[float, float, float, float]]:
    """Return (sum, count, minimum, maximum) of each datum in [begin, end), from any source. Times are UTC."""
    found = []
    begin, end = begin.replace(tzinfo=None), end.replace(tzinfo=None)
    for datum in list(backend(region).metric_data):
        if datum.name != name or datum.namespace != namespace:
            continue
        if not begin <= _utc(datum.timestamp) < end:
            continue
        if {dimension.name: dimension.value for dimension in datum.dimensions} != dict(dimensions):
            continue
        if isinstance(datum, MetricAggregatedDatum):
            found.append((datum.sum, datum.sample_count, datum.min, datum.max))
        else:
            found.append((datum.value, 1.0, datum.value, datum.value))
    return found


def _utc(moment: datetime) -> datetime:
    """Return a time without zone: moto's own are UTC, clients' may carry a zone."""
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _new(metric: Metric, value: float, begin: datetime) -> MetricAggregatedDatum:
    dimensions = [{"Name": name, "Value": found} for name, found in metric.dimensions]
    return MetricAggregatedDatum(
        metric.namespace, metric.name, value, value, 1.0, value, dimensions, begin, metric.unit
    )
