"""What every DAG of the house has: who is told of a failure, what is retried, the tag to find it by."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from ml_pipeline.errors import PaidWorkRetryPolicy
from ml_pipeline.notifier import PipelineNotifier


def dag_defaults() -> dict[str, Any]:
    """Keyword arguments of `DAG`."""
    return {
        "tags": ["ml-pipeline"],
        "on_failure_callback": PipelineNotifier("failed"),
        "default_args": {
            "owner": "ml-pipeline",
            "retries": 2,
            "retry_delay": timedelta(seconds=10),
            "retry_policy": PaidWorkRetryPolicy(),
        },
    }
