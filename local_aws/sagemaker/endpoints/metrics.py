"""Invocation metrics of endpoints in CloudWatch's AWS/SageMaker namespace, summed up before they are sent."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from local_aws.context import Context

logger = logging.getLogger(__name__)

NAMESPACE = "AWS/SageMaker"
FLUSH_SECONDS = 1.0


@dataclass
class Sums:
    """One metric since the last flush."""

    count: int = 0
    total: float = 0.0
    least: float = float("inf")
    most: float = float("-inf")

    def add(self, value: float) -> None:
        """Take one value."""
        self.count += 1
        self.total += value
        self.least, self.most = min(self.least, value), max(self.most, value)


Key = tuple[str, str, str]
"""(region, endpoint, variant)"""


@dataclass
class InvocationMetrics:
    """Collects from the runtime, sends from a thread of its own."""

    context: Context
    _sums: dict[Key, dict[str, Sums]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to send."""
        self._thread = threading.Thread(target=self._run, name="endpoint metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send the rest."""
        if self._thread is not None:
            self._thread.join(FLUSH_SECONDS * 3)

    def record(self, key: Key, status: int, instances: int, model_us: float, overhead_us: float) -> None:
        """One invocation: the container's HTTP status and how long it and local_aws took, in microseconds."""
        values = {
            "Invocations": 1.0,
            "InvocationsPerInstance": 1.0 / max(1, instances),
            "Invocation4XXErrors": float(400 <= status < 500),
            "Invocation5XXErrors": float(status >= 500),
            "ModelLatency": model_us,
            "OverheadLatency": overhead_us,
        }
        with self._lock:
            sums = self._sums.setdefault(key, {})
            for name, value in values.items():
                sums.setdefault(name, Sums()).add(value)

    def flush(self) -> None:
        """Send what was collected."""
        with self._lock:
            collected, self._sums = self._sums, {}
        for (region, endpoint, variant), sums in collected.items():
            try:
                self.context.client("cloudwatch", region).put_metric_data(
                    Namespace=NAMESPACE, MetricData=data(endpoint, variant, sums, datetime.now(UTC))
                )
            except (ClientError, BotoCoreError) as error:
                logger.warning("metrics of endpoint %s could not be sent: %s", endpoint, error)

    def _run(self) -> None:
        while not self.context.stopping.wait(FLUSH_SECONDS):
            self.flush()


def data(endpoint: str, variant: str, sums: dict[str, Sums], now: datetime) -> Sequence[dict[str, Any]]:
    """MetricData of one variant."""
    dimensions = [{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": variant}]
    return [
        {
            "MetricName": name,
            "Dimensions": dimensions,
            "Timestamp": now,
            "Unit": "Microseconds" if name.endswith("Latency") else "None",
            "StatisticValues": {
                "SampleCount": sum_.count,
                "Sum": sum_.total,
                "Minimum": sum_.least,
                "Maximum": sum_.most,
            },
        }
        for name, sum_ in sums.items()
    ]
