"""A task instance, and its operator driven as far as its first wait."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred


class Instance:
    """A task instance: what it pushes is kept."""

    dag_id, run_id, map_index, try_number, max_tries = "dag", "run", -1, 1, 8

    def __init__(self, task_id: str = "work", state: str = "running") -> None:
        self.task_id, self.state, self.pushed = task_id, state, dict[str, Any]()

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value

    def xcom_pull(self, task_ids: str, key: str, map_indexes: Any = None) -> Any:
        return self.pushed.get(key)

    def get_task_states(self, **_: Any) -> Any:
        return {self.run_id: {self.task_id: self.state}}


def context(instance: Instance) -> Any:
    run = SimpleNamespace(dag_id="dag", run_id="run")
    return {"ti": instance, "dag_run": run, "params": {}, "task": SimpleNamespace()}


def deferred(operator: Any, instance: Instance) -> dict[str, Any]:
    """Execute until it waits; the arguments of its trigger."""
    with pytest.raises(TaskDeferred) as raised:
        operator.execute(context(instance))
    arguments: dict[str, Any] = raised.value.trigger.serialize()[1]
    return arguments
