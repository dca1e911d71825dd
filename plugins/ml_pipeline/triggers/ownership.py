"""Whether a killed trigger's job still has somebody waiting for it."""

from __future__ import annotations

from typing import Any

# A task in any other state (cleared, queued, up for retry, ...) will run again and adopt the job.
_OVER = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})


async def task_is_over(task_instance: Any) -> bool:
    """Whether nobody will ever resume `task_instance`: marked, skipped or deleted, not cleared or retried.

    Airflow 3.3 calls a trigger's `on_kill` for all of these alike, so its state has to be asked for.
    """
    from asgiref.sync import sync_to_async

    if task_instance is None:
        return True
    return is_over(await sync_to_async(_task_states)(task_instance), task_instance.run_id)


def is_over(states: dict[str, dict[str, Any]], run_id: str) -> bool:
    """The decision of `task_is_over`, from the answer of the execution API: {run: {task: state}}."""
    found = list(states.get(run_id, {}).values())
    return not found or all(str(state) in _OVER for state in found)


def _task_states(task_instance: Any) -> dict[str, dict[str, Any]]:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    return RuntimeTaskInstance.get_task_states(
        dag_id=task_instance.dag_id,
        task_ids=[task_instance.task_id],
        run_ids=[task_instance.run_id],
        map_index=task_instance.map_index,
    )
