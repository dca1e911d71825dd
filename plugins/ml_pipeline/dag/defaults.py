"""Defaults of every DAG of the project: notification, retries, tag."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from ml_pipeline.dag.notifier import PipelineNotifier
from ml_pipeline.errors import RETRIES, PaidWorkRetryPolicy


def dag_defaults(*, scheduled: bool = False) -> dict[str, Any]:
    """Return keyword arguments of `DAG`.

    Args:
        scheduled: The DAG starts runs by itself, so a person switches it on. Any other is on from the start: a run
            that REST or another DAG asks for would never begin in a paused one.
    """
    return {
        "tags": ["ml-pipeline"],
        "is_paused_upon_creation": scheduled,
        "default_args": {
            "owner": "ml-pipeline",
            # On the task, not on the DAG: only the task knows its exception, such as the alarm of a rollback.
            "on_failure_callback": PipelineNotifier("failed"),
            "retries": RETRIES,
            "retry_delay": timedelta(seconds=10),
            "retry_policy": PaidWorkRetryPolicy(),
        },
    }
