"""Retry policies on Airflow 3.2, which asks none: a task raises AirflowFailException where its policy says no."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.definitions.mappedoperator import MappedOperator
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSkipException,
    DagRunTriggerException,
    DownstreamTasksSkipped,
)

from ml_pipeline.errors import HAS_POLICIES, LONGEST_PAUSE, PaidWorkRetryPolicy, one_line

if TYPE_CHECKING:
    from airflow.sdk import Context

# By which tasks tell Airflow how they ended.
_SIGNALS = (
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSkipException,
    DagRunTriggerException,
    DownstreamTasksSkipped,
)


def options() -> dict[str, object]:
    """Return the arguments of a task that decide over its retries, next to their number and first pause."""
    if HAS_POLICIES:
        return {"retry_policy": PaidWorkRetryPolicy()}
    return {"retry_exponential_backoff": 2.0, "max_retry_delay": LONGEST_PAUSE}


def obey(task: BaseOperator | MappedOperator) -> None:
    """Let a task fail at once where the policy sees no use in another try; Airflow 3.3 does so by itself."""
    if isinstance(task, MappedOperator):  # of whose class each of its tasks is made when it runs
        task.operator_class = _obeying(task.operator_class)  # type: ignore[arg-type]
    else:
        task.__class__ = _obeying(type(task))  # type: ignore[arg-type]


@functools.cache
def _obeying(kind: type[BaseOperator]) -> type[BaseOperator]:
    """Return a subclass, since Airflow copies tasks and wraps their methods by class."""

    def execute(self: Any, context: Context) -> Any:
        with _failing_at_once(self.policy, context):
            return kind.execute(self, context)

    def resume_execution(
        self: Any, next_method: str, next_kwargs: dict[str, Any] | None, context: Context
    ) -> Any:
        with _failing_at_once(self.policy, context):
            return kind.resume_execution(self, next_method, next_kwargs, context)

    # The project's operators set their own in the constructor.
    body = {"execute": execute, "resume_execution": resume_execution, "policy": PaidWorkRetryPolicy()}
    body["__module__"] = kind.__module__
    made: type[BaseOperator] = type(kind)(kind.__name__, (kind,), body)  # type: ignore[misc]
    return made


@contextmanager
def _failing_at_once(policy: PaidWorkRetryPolicy, context: Mapping[str, Any]) -> Iterator[None]:
    try:
        yield
    except _SIGNALS:
        raise
    except Exception as error:
        ti = context["ti"]
        if policy.pause(error, ti.try_number, ti.max_tries) is None:
            raise AirflowFailException(one_line(error)) from error
        raise
