"""Retry policies where Airflow asks none: `make test-matrix` runs the main job on such an Airflow."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowSkipException,
    DownstreamTasksSkipped,
    TaskDeferred,
)

from ml_pipeline.dag import retries
from ml_pipeline.errors import JobFailed, JobInterrupted, PaidWorkRetryPolicy
from ml_pipeline.triggers.photo_queue import PhotoQueueTrigger


class Raising(BaseOperator):
    """Raises what it was given, at the start and after a wait."""

    allow_nested_operators = True

    def __init__(self, error: BaseException | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.error = error

    def execute(self, context: Any) -> str:
        if self.error:
            raise self.error
        return self.task_id

    def again(self, context: Any, event: Any = None) -> str:
        return self.execute(context)


def task(error: BaseException | None = None) -> Raising:
    made = Raising(error=error, task_id="raising")
    retries.obey(made)
    return copy.copy(made)  # Airflow executes a copy


def context(try_number: int = 1) -> Any:
    return {"ti": SimpleNamespace(try_number=try_number, max_tries=8)}


@pytest.mark.parametrize("error", [JobFailed("its own fault"), ValueError("wrong")])
def test_what_would_only_happen_again_fails_at_once(error: Exception) -> None:
    with pytest.raises(AirflowFailException, match=str(error)) as found:
        task(error).execute(context())
    assert found.value.__cause__ is error
    with pytest.raises(AirflowFailException):
        task(error).resume_execution("again", None, context())


def test_what_may_pass_is_tried_again_as_often_as_it_pays() -> None:
    error = JobInterrupted("no machines")
    with pytest.raises(JobInterrupted):
        task(error).execute(context(1))
    with pytest.raises(AirflowFailException):
        task(error).execute(context(3))


@pytest.mark.parametrize(
    "signal",
    [
        AirflowSkipException("not today"),
        DownstreamTasksSkipped(tasks=["after"]),
        TaskDeferred(trigger=PhotoQueueTrigger("url", 1.0, {}), method_name="again"),
    ],
)
def test_what_is_no_error_goes_through(signal: BaseException) -> None:
    with pytest.raises(type(signal)):
        task(signal).execute(context())


def test_a_task_keeps_its_name_and_its_result() -> None:
    obeying = task()
    assert (type(obeying).__name__, type(obeying).__module__) == ("Raising", __name__)
    assert obeying.execute(context()) == "raising"
    assert isinstance(obeying.policy, PaidWorkRetryPolicy)


def test_a_task_of_a_mapped_one_fails_at_once_too() -> None:
    with DAG("mapped"):
        mapped = Raising.partial(task_id="raising").expand(error=[ValueError("wrong")])
    retries.obey(mapped)
    made = mapped.unmap({"error": ValueError("wrong")})
    assert (mapped.task_type, type(made).__module__) == ("Raising", __name__)
    with pytest.raises(AirflowFailException, match="wrong"):
        made.execute(context())
