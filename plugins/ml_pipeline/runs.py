"""Whether a DAG run is over, asked from a worker or a trigger through the execution API."""

from __future__ import annotations

_OVER = frozenset({"success", "failed"})


def run_is_over(dag_id: str, run_id: str) -> bool:
    """True for a run that succeeded, failed or was deleted."""
    from airflow.sdk.exceptions import AirflowRuntimeError
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    try:
        return str(RuntimeTaskInstance.get_dagrun_state(dag_id, run_id)) in _OVER
    except AirflowRuntimeError as error:
        # The API answers 404 for a run that was deleted; anything else is no knowledge that it is over.
        if "404" in str(error) or "not_found" in str(error).lower():
            return True
        raise
