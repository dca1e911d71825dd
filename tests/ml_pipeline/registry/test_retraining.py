"""Scheduled retraining: what the training run is given, and that there is one of it, whose end is the task's."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk.exceptions import DagRunTriggerException, TaskDeferred

from ml_pipeline.dag import tasks
from ml_pipeline.dag.retrain import TrainingRunOperator
from ml_pipeline.registry import packages as registry
from ml_pipeline.registry import retraining
from ml_pipeline.registry.packages import Package


class Asked:
    """A task instance that is asked which of the runs that the trigger names are in a state."""

    def __init__(self, state: str | None) -> None:
        self.state = state
        self.pushed: dict[str, str] = {}

    def get_dr_count(self, dag_id: str, run_ids: list[str], states: list[str]) -> int:
        assert (dag_id, run_ids) == ("train_and_deploy", ["run-1"])
        return int(self.state in states)

    def xcom_push(self, key: str, value: str) -> None:
        self.pushed[key] = value


def start(state: str | None) -> Exception:
    operator = TrainingRunOperator(
        task_id="train", trigger_dag_id="train_and_deploy", trigger_run_id="run-1", conf={}, poke_interval=1
    )
    with pytest.raises((DagRunTriggerException, TaskDeferred)) as raised:
        operator.execute({"ti": Asked(state)})
    return raised.value


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_training_run_under_way_is_waited_for(state: str) -> None:
    waiting = start(state)
    assert isinstance(waiting, TaskDeferred)
    assert (waiting.trigger.dag_id, waiting.trigger.run_ids) == ("train_and_deploy", ["run-1"])
    assert waiting.method_name == "execute_complete"


@pytest.mark.parametrize("state", [None, "failed", "success"])
def test_one_that_ended_is_run_again(state: str | None) -> None:
    asked = start(state)
    assert isinstance(asked, DagRunTriggerException)
    assert asked.reset_dag_run
    assert not asked.skip_when_already_exists
    assert asked.wait_for_completion


def test_the_training_run_makes_the_version_that_was_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_AWS_URL", "http://127.0.0.1:1")
    monkeypatch.setattr(tasks, "client", lambda service: None)
    monkeypatch.setattr(registry, "champion", lambda client, group: None)
    dataset, conf = {"name": "dogs", "version": "abc"}, {"trials": 3, "seed": 0, "data": "elsewhere"}
    given: dict[str, Any] = tasks.decide.function(
        dataset, "s3://team/dogs", 7, True, False, conf, Asked(None)
    )
    assert given == {
        **{
            "data": "s3://team/dogs",
            "seed": 7,
            "dataset_name": "dogs",
            "force": False,
            "group_lookalikes": True,
        },
        "trials": 3,
    }


def package(version: str) -> Package:
    return Package("arn:model", "Approved", "s3://bucket/m", "image", {"dataset_version": version})


@pytest.mark.parametrize(
    ("champion", "force", "train"),
    [
        (None, False, True),
        (package("1"), False, False),
        (package("1"), True, True),
        (package("0"), False, True),
    ],
)
def test_training_again_needs_a_reason(champion: Package | None, force: bool, train: bool) -> None:
    decision = retraining.decide({"name": "dogs", "version": "1"}, champion, force)
    assert decision.train is train
    assert "1" in decision.reason
