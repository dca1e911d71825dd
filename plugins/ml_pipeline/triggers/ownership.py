"""Find out whether a killed task or an ended run will come back for its paid work."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Protocol

# asyncio keeps only weak references to tasks.
_LATE: set[asyncio.Task[None]] = set()
# A task in any other state (cleared, queued, up for retry, ...) will run again and adopt the job.
_RUN_OVER = frozenset({"success", "failed"})
_OVER = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})

States = Mapping[str, Mapping[str, str | None]]


class TaskInstance(Protocol):
    """The identity of a task instance, as an operator or a trigger is given it."""

    @property
    def dag_id(self) -> str:
        """DAG of the run."""

    @property
    def run_id(self) -> str:
        """Run of the task."""

    @property
    def task_id(self) -> str:
        """Name of the task in the DAG."""

    @property
    def map_index(self) -> int:
        """Index of a mapped task, -1 for others."""


async def even_if_late(work: Coroutine[object, object, None]) -> None:
    """Finish the work of an `on_kill`, although Airflow stops waiting for it after 30 seconds.

    The first question that a triggerer asks of the execution API builds that API in its own process, which takes longer
    than that on a busy machine.
    """
    task = asyncio.create_task(work)
    _LATE.add(task)
    task.add_done_callback(_LATE.discard)
    await asyncio.shield(task)


async def task_is_over(task_instance: TaskInstance | None) -> bool:
    """Return True unless `task_instance` will run again: True for marked, skipped or deleted, not cleared or retried.

    Airflow 3.3 calls a trigger's `on_kill` in all of these cases, so the state has to be asked for.
    """
    from asgiref.sync import sync_to_async

    if task_instance is None:
        return True
    return is_over(await sync_to_async(_task_states)(task_instance), task_instance.run_id)


def is_over(states: States, run_id: str) -> bool:
    """Decide `task_is_over` from the answer of the execution API: {run: {task: state}}."""
    found = list(states.get(run_id, {}).values())
    return not found or all(str(state) in _OVER for state in found)


def _task_states(task_instance: TaskInstance) -> States:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    states: States = RuntimeTaskInstance.get_task_states(
        dag_id=task_instance.dag_id,
        task_ids=[task_instance.task_id],
        run_ids=[task_instance.run_id],
        map_index=task_instance.map_index,
    )
    return states


def run_is_over(dag_id: str, run_id: str) -> bool:
    """Return True for a run that succeeded, failed or was deleted."""
    return _run_state(dag_id, run_id) in (None, *_RUN_OVER)


def run_has_ended(dag_id: str, run_id: str) -> bool:
    """Return True only for a run that is known to have succeeded or failed.

    An unknown run may be one of another Airflow that shares the account.
    """
    return _run_state(dag_id, run_id) in _RUN_OVER


def _run_state(dag_id: str, run_id: str) -> str | None:
    """Return the state of a run, or None if there is none of that id."""
    from airflow.sdk.exceptions import AirflowRuntimeError
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    try:
        return str(RuntimeTaskInstance.get_dagrun_state(dag_id, run_id))
    except AirflowRuntimeError as error:
        # The API answers 404 for a run that was deleted; any other error does not prove that the run has ended.
        if "404" in str(error) or "not_found" in str(error).lower():
            return None
        raise
