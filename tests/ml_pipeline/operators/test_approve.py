"""Answers of people: they reach the registry, or the next try."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from airflow.sdk.exceptions import DownstreamTasksSkipped

from ml_pipeline.operators.approve import ApproveModelOperator, ApproveRetrainingOperator
from tests.ml_pipeline.operators.instance import Instance, context
from tests.simulator import runs
from tests.simulator.world import World

ARN = "arn:aws:sagemaker:us-east-1:1:model-package/dogs/2"
EVALUATED = {
    "accuracy": 0.9,
    "accuracy_interval": {"low": 0.85, "high": 0.95, "level": 0.95},
    "photos": 200,
    "runtime": "onnx-int8",
    "classes": [{"name": "beagle", "recall": 0.9}],
}
URI = "s3://bucket/jobs/evaluate/evaluation.json"


def answer(option: str, **more: Any) -> dict[str, Any]:
    """The event of an answered question."""
    return {
        "chosen_options": [option],
        "params_input": {},
        "responded_at": datetime(2026, 11, 30, tzinfo=UTC),
        "responded_by_user": {"id": "1", "name": "ana"},
        "timedout": False,
        **more,
    }


def model_operator(**options: Any) -> ApproveModelOperator:
    arguments: dict[str, Any] = {
        "approval": "manual",
        "package": {"model_package_arn": ARN},
        "planned": {"endpoint_name": "dogs", "endpoint_usd_per_hour": 0.115, "replaces": None},
        "evaluation": {"evaluation_uri": URI, "report_url": "http://host/report.html", "champion": None},
        "gate": {"reason": "better than guessing"},
    }
    with DAG("dag"):
        operator = ApproveModelOperator(task_id="approve", subject="?", **{**arguments, **options})
        operator >> EmptyOperator(task_id="deploy")
    return operator


def retraining(**options: Any) -> ApproveRetrainingOperator:
    arguments: dict[str, Any] = {"retrain": "ask", "endpoint_name": "dogs", **options}
    with DAG("dag"):
        operator = ApproveRetrainingOperator(task_id="approve", subject="?", **arguments)
        operator >> EmptyOperator(task_id="train")
    return operator


def test_a_gate_that_approves_by_itself_asks_no_one(world: World) -> None:
    operator = model_operator(approval="auto", planned={}, evaluation={}, gate={})
    assert operator.execute(context(Instance("approve"))) == {"approved": True, "by": "gate"}


@pytest.mark.parametrize("champion", [None, {"model_package_arn": "arn/1"}])
def test_the_question_is_made_of_what_the_run_left(world: World, champion: Any) -> None:
    world.packages[ARN] = runs.package(ARN, 2)
    world.objects["jobs/evaluate/evaluation.json"] = json.dumps(EVALUATED).encode()
    world.objects["jobs/evaluate/champion/evaluation.json"] = json.dumps(
        {**EVALUATED, "accuracy": 0.7}
    ).encode()
    operator = model_operator(
        evaluation={"evaluation_uri": URI, "report_url": "http://host/report.html", "champion": champion}
    )
    text = operator._question(context(Instance("approve")))
    assert "version **2** would serve, replacing none" in text
    assert "New model: 90.0%" in text
    assert ("Champion: 70.0%" in text) is bool(champion)


@pytest.mark.parametrize(("option", "status"), [("Approve", "Approved"), ("Reject", "Rejected")])
def test_the_answer_is_written_into_the_registry(world: World, option: str, status: str) -> None:
    world.packages[ARN] = {**runs.package(ARN, 2), "ModelApprovalStatus": "PendingManualApproval"}
    operator, instance = model_operator(), Instance("approve")
    event = answer(option, params_input={"comment": "too few huskies"})
    if option == "Approve":
        result = operator.execute_complete(context(instance), event)
        assert result == {"approved": True, "by": "ana"}
    else:
        with pytest.raises(DownstreamTasksSkipped):
            operator.execute_complete({**context(instance), "task": operator}, event)
    assert world.packages[ARN]["ModelApprovalStatus"] == status
    assert "by ana: too few huskies" in world.packages[ARN]["ApprovalDescription"]
    assert instance.pushed["return_value"] == {"approved": option == "Approve", "by": "ana"}


def test_an_answer_that_failed_changes_nothing_in_the_registry(world: World) -> None:
    world.packages[ARN] = {**runs.package(ARN, 2), "ModelApprovalStatus": "PendingManualApproval"}
    event = {"error": "the response timed out", "error_type": "timeout"}
    with pytest.raises(Exception, match="timed out"):
        model_operator().execute_complete(context(Instance("approve")), event)
    assert world.packages[ARN]["ModelApprovalStatus"] == "PendingManualApproval"


def test_retraining_that_starts_by_itself_asks_no_one(world: World) -> None:
    assert retraining(retrain="auto").execute(context(Instance("approve"))) is None


@pytest.mark.parametrize("option", ["Approve", "Reject"])
def test_an_answer_that_airflow_lost_is_acted_upon_by_the_next_try(world: World, option: str) -> None:
    def act(operator: ApproveRetrainingOperator, *event: Any) -> bool:
        step = operator.execute_complete if event else operator.execute
        try:
            step({**context(Instance("approve")), "task": operator}, *event)
        except DownstreamTasksSkipped:
            return False
        return True

    assert act(retraining(), answer(option)) is (option == "Approve")
    assert act(retraining()) is (option == "Approve")
    assert [key for key in world.objects if key.startswith("watch/dogs/answers/run/")]


def test_a_question_without_an_answer_leaves_none_behind(world: World) -> None:
    with pytest.raises(Exception, match="timed out"):
        retraining().execute_complete(
            context(Instance("approve")), {"error": "the response timed out", "error_type": "timeout"}
        )
    assert not [key for key in world.objects if "/answers/" in key]
