"""Defaults of every DAG of the project: notification, retries, tag."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG

from ml_pipeline.dag import notes
from ml_pipeline.dag.console_link import ConsoleLink
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
            "post_execute": notes.attach,
            "retries": RETRIES,
            "retry_delay": timedelta(seconds=10),
            "retry_policy": PaidWorkRetryPolicy(),
        },
    }


def finish(dag: DAG) -> None:
    """Give every task a name in words and a link to the console. Called at the end of a DAG file."""
    for task in dag.tasks:
        if not task.is_mapped:
            # The constructor's argument; Airflow has no setter, and a name per task would repeat its id.
            task._task_display_name = task.task_id.rpartition(".")[2].replace("_", " ").capitalize()
            task.operator_extra_links = (*task.operator_extra_links, ConsoleLink())
