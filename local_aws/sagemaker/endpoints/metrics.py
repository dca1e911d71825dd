"""Invocation metrics of endpoints in CloudWatch's AWS/SageMaker namespace."""

from __future__ import annotations

from local_aws.cloudwatch.metric_data import Metric, MetricData

NAMESPACE = "AWS/SageMaker"
_MICROSECONDS = "Microseconds"


class InvocationMetrics:
    """Records the metrics of each invocation."""

    def __init__(self) -> None:
        self._data = MetricData()

    def record(
        self,
        region: str,
        endpoint: str,
        variant: str,
        status: int,
        instances: int,
        model_us: float,
        overhead_us: float,
    ) -> None:
        """Record one invocation: the container's HTTP status, its latency and local_aws's own in microseconds."""
        dimensions = (("EndpointName", endpoint), ("VariantName", variant))

        def metric(name: str, unit: str = "None") -> Metric:
            return Metric(region, NAMESPACE, name, dimensions, unit)

        self._data.add(
            {
                metric("Invocations"): 1.0,
                metric("InvocationsPerInstance"): 1.0 / max(1, instances),
                metric("Invocation4XXErrors"): float(400 <= status < 500),
                metric("Invocation5XXErrors"): float(status >= 500),
                metric("ModelLatency", _MICROSECONDS): model_us,
                metric("OverheadLatency", _MICROSECONDS): overhead_us,
            }
        )
