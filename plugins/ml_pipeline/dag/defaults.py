"""Defaults of every DAG of the project: notification, retries, tag."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG
from airflow.sdk.definitions.param import DagParam

from ml_pipeline.dag import notes, retries
from ml_pipeline.dag.console_link import ConsoleLink
from ml_pipeline.dag.notifier import PipelineNotifier
from ml_pipeline.errors import HAS_POLICIES, RETRIES


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
            # Also after a worker that died, about which no policy is asked.
            "retry_delay": timedelta(seconds=10),
            **retries.options(),
        },
    }


def params_of(dag: DAG) -> Callable[[str], DagParam]:
    """Return `dag.param`."""
    return dag.param if HAS_POLICIES else functools.partial(_SentParam, dag)


class _SentParam(DagParam):
    """A param as Airflow 3.2 can send it: its DAG processor cannot encode that there is no default."""

    def serialize(self) -> dict[str, Any]:
        return {**super().serialize(), "default": None}


def finish(dag: DAG) -> None:
    """Give every task a name in words and a link to the console. Called at the end of a DAG file."""
    for task in dag.tasks:
        if not HAS_POLICIES:
            retries.obey(task)
        if not task.is_mapped:
            # The constructor's argument; Airflow has no setter, and a name per task would repeat its id.
            task._task_display_name = task.task_id.rpartition(".")[2].replace("_", " ").capitalize()
            task.operator_extra_links = (*task.operator_extra_links, ConsoleLink())
