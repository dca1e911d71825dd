"""Operators whose work fails, is gone, or is not needed, against the simulator's model of AWS."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse

from ml_pipeline.errors import FreeRetryPolicy, JobFailed, PaidWorkRetryPolicy, WaitFailed
from ml_pipeline.operators import leftovers
from ml_pipeline.operators.check import CheckDataOperator
from ml_pipeline.operators.embed import EmbedOperator
from ml_pipeline.operators.evaluate import EvaluateOperator
from ml_pipeline.operators.gate import GateOperator
from ml_pipeline.operators.leftovers import StopLeftoversOperator
from ml_pipeline.operators.links import LINK_KEY
from ml_pipeline.operators.register import RegisterModelOperator
from ml_pipeline.requests import names
from tests.ml_pipeline.operators.conftest import KEY, SHARD
from tests.ml_pipeline.operators.instance import Instance, context, deferred
from tests.simulator import runs
from tests.simulator.work import Job
from tests.simulator.world import World

DATASET = {"name": "dogs", "version": "abc", "manifest_uri": f"s3://bucket/{KEY}"}
EMBED: dict[str, Any] = {
    "task_id": "embed",
    "dataset": DATASET,
    "weights": {"uri": None, "sha256": "2" * 64},
    "architecture": "squeezenet1_1",
}


# ------------------------------------------------------------------------------------------------- jobs


def test_a_job_that_was_deleted_meanwhile_fails_the_task(world: World) -> None:
    operator, instance = runs.Work(task_id="work"), Instance()
    name = deferred(operator, instance)["job_name"]
    event = {"job_name": name, "status": "Completed", "reason": ""}
    del world.jobs[name]
    with pytest.raises(JobFailed, match="was deleted while this task waited"):
        operator.complete(context(instance), event)
    with pytest.raises(JobFailed, match=f"{name} is Failed: AlgorithmError: bad"):
        operator.complete(context(instance), {**event, "status": "Failed", "reason": "AlgorithmError: bad"})


@pytest.mark.parametrize(("state", "stopped"), [("failed", True), ("up_for_retry", False)])
def test_a_kill_stops_the_job_only_where_no_try_comes_back(world: World, state: str, stopped: bool) -> None:
    operator, instance = runs.Work(task_id="work"), Instance(state=state)
    operator.on_kill()  # nothing was started: nothing to stop
    name = deferred(operator, instance)["job_name"]
    operator.on_kill()
    assert (world.jobs[name].stopped is not None) is stopped


def test_a_kill_without_an_answer_of_airflow_stops_the_job(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(self: Instance, **_: Any) -> Any:
        raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={}))

    monkeypatch.setattr(Instance, "get_task_states", silent)
    operator, instance = runs.Work(task_id="work"), Instance()
    name = deferred(operator, instance)["job_name"]
    operator.on_kill()
    assert world.jobs[name].stopped is not None


def test_a_wait_that_gave_up_stops_the_job_and_tells_the_cause(world: World) -> None:
    operator, instance = runs.Work(task_id="work"), Instance()
    name = deferred(operator, instance)["job_name"]
    with pytest.raises(WaitFailed, match="no answer for 6 h"):
        operator.resume_execution("complete", {"event": {"failure": "no answer for 6 h"}}, context(instance))
    assert world.jobs[name].stopped is not None
    # Nothing was announced: there is nothing to stop, and the cause is the same.
    with pytest.raises(WaitFailed):
        operator.resume_execution("complete", {"event": {"failure": "x"}}, context(Instance()))


# -------------------------------------------------------------------------------------------- leftovers


def left(world: World, run_id: str, project: str = "ml-pipeline") -> Job:
    tags = [{"Key": "project", "Value": project}, *names.tags(names.Origin("dag", run_id, ""))[1:]]
    job = Job(runs.Work.kind, f"work-{run_id}", tags, 0.0, 1e9, ("Completed", ""))
    world.jobs[job.name] = job
    return job


def test_the_teardown_stops_what_ended_runs_left_and_nothing_else(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = {"ended": True, "at-work": False}

    def has_ended(dag_id: str, run_id: str) -> bool:
        if run_id == "unknown":
            raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={}))
        return states[run_id]

    monkeypatch.setattr(leftovers, "run_has_ended", has_ended)
    jobs = {run_id: left(world, run_id) for run_id in ("run", "ended", "at-work", "unknown")}
    foreign = left(world, "of-others", project="others")
    result = StopLeftoversOperator(task_id="stop_leftovers").execute(context(Instance()))
    assert sorted(result["stopped"]) == ["work-ended", "work-run"]
    assert [name for name, job in jobs.items() if job.stopped is None] == ["at-work", "unknown"]
    assert foreign.stopped is None


def test_a_full_disk_is_tried_for_longer_where_a_try_costs_nothing() -> None:
    full = OSError(28, "No space left on device")
    assert PaidWorkRetryPolicy().evaluate(full, 3, 8).action.value == "fail"
    assert FreeRetryPolicy().evaluate(full, 8, 8).action.value == "retry"
    assert FreeRetryPolicy().evaluate(full, 9, 8).action.value == "fail"


# -------------------------------------------------------------------------------------- embed and check


def test_nothing_is_embedded_for_finetune_or_twice(world: World) -> None:
    finetune = EmbedOperator(strategy="finetune", **EMBED)
    assert finetune.execute(context(Instance()))["embedder_id"] is None
    operator, instance = EmbedOperator(strategy="head", **EMBED), Instance("embed")
    name = deferred(operator, instance)["job_name"]
    folder = operator._embedder_id()
    event = {"job_name": name, "status": "Completed", "reason": ""}
    world.jobs[name].ends = 0.0
    world.jobs[name].outcome = ("Completed", "")
    with pytest.raises(RuntimeError, match="completed without embedding 1 shards"):
        operator.complete(context(instance), event)
    world.objects[f"embeddings/{folder}/{SHARD}.safetensors"] = b"x"
    assert operator.complete(context(instance), event)["embedded"] == 1
    again = EmbedOperator(**{**EMBED, "task_id": "later"}, strategy="head")
    assert again.execute(context(Instance("later")))["job_name"] is None


def test_a_teacher_is_embedded_for_any_strategy_without_a_check_of_the_data(world: World) -> None:
    without = EmbedOperator(**{**EMBED, "architecture": ""}, strategy="head", teacher=True)
    assert without.execute(context(Instance()))["embeddings_uri"] is None
    operator, instance = EmbedOperator(strategy="finetune", teacher=True, **EMBED), Instance("embed")
    name = deferred(operator, instance)["job_name"]
    arguments = world.jobs[name].request["AppSpecification"]["ContainerArguments"]
    assert not {"--embed", "--dataset"} & set(arguments)
    assert [
        output["OutputName"] for output in world.jobs[name].request["ProcessingOutputConfig"]["Outputs"]
    ] == ["embeddings"]


def findings(share: float) -> bytes:
    found = {
        "photos": 4,
        "suspects": {"count": 2, "share": share, "listed": []},
        "near_duplicates": {"pairs": 0, "across_classes": 0, "across_splits": 0},
        "balance": {"too_small": []},
    }
    return json.dumps(found).encode()


def test_labels_that_are_worse_than_allowed_stop_the_run(world: World) -> None:
    embedded = {"embedder_id": "e"}
    skipped = CheckDataOperator(task_id="check", dataset=DATASET, embeddings={"embedder_id": None})
    assert skipped.execute(context(Instance("check"))) == {}
    operator = CheckDataOperator(task_id="check", dataset=DATASET, embeddings=embedded, max_suspect_share=0.1)
    instance = Instance("check")
    name = deferred(operator, instance)["job_name"]
    world.jobs[name].ends, world.jobs[name].outcome = 0.0, ("Completed", "")
    event = {"job_name": name, "status": "Completed", "reason": ""}
    world.objects[f"{operator._folder().removeprefix('s3://bucket/')}check.json"] = findings(0.5)
    with pytest.raises(AirflowFailException, match=r"50\.0 % of the labels look wrong"):
        operator.complete(context(instance), event)
    patient = CheckDataOperator(task_id="check2", dataset=DATASET, embeddings=embedded, max_suspect_share=0.5)
    assert patient.execute(context(Instance("check2")))["suspects"] == 2


# ----------------------------------------------------------------------- evaluate, gate, register, approve


def test_the_champion_is_judged_in_the_same_job(world: World) -> None:
    world.packages["arn:package/1"] = runs.package("arn:package/1", 1)
    operator = EvaluateOperator(
        task_id="evaluate",
        group="dogs",
        dataset=DATASET,
        training=[None, {"model_uri": "s3://bucket/m.tar.gz"}],
    )
    instance = Instance("evaluate")
    name = deferred(operator, instance)["job_name"]
    inputs = {entry["InputName"] for entry in world.jobs[name].request["ProcessingInputs"]}
    assert {"model", "champion"} <= inputs
    figures = {
        "accuracy": 0.9, "accuracy_interval": {"low": 0.8, "high": 1.0}, "top5_accuracy": 1.0, "photos": 4,
        "runtime": "onnx",
    }  # fmt: skip
    for part in ("", "champion/"):
        world.objects[f"jobs/{name}/evaluation/{part}evaluation.json"] = json.dumps(figures).encode()
    described = {"ProcessingJobName": name, **world.jobs[name].request}
    result = operator.result(runs.Settings.load(), described)
    assert result["champion"]
    assert result["champion"]["accuracy"] == 0.9


def predictions(answer: str) -> bytes:
    rows = [{"key": str(n), "label": "a" if n % 2 else "b", "prediction": answer} for n in range(8)]
    return "\n".join(map(json.dumps, rows)).encode()


def test_a_refused_model_skips_what_follows_and_says_why(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    skipped = list[Any]()
    monkeypatch.setattr(GateOperator, "skip", lambda self, ti, tasks: skipped.extend(tasks))
    world.objects |= {"new.jsonl": predictions("a"), "old.jsonl": predictions("b")}
    champion = {"predictions_uri": "s3://bucket/old.jsonl", "accuracy": 0.5, "model_uri": "s3://bucket/m"}
    evaluation = {
        "predictions_uri": "s3://bucket/new.jsonl",
        "accuracy": 0.5,
        "photos": 8,
        "champion": champion,
    }
    instance = Instance("gate")
    given = context(instance) | {"task": SimpleNamespace(get_direct_relatives=lambda upstream: ["register"])}
    refused = GateOperator(task_id="gate", dataset=DATASET, evaluation=evaluation).execute(given)
    assert not refused["passed"]
    assert "most frequent class" in refused["reason"]
    assert instance.pushed["return_value"] == refused
    assert skipped == ["register"]
    alone = evaluation | {"champion": None}
    passed = GateOperator(task_id="gate2", dataset=DATASET, evaluation=alone, min_accuracy=0.1).execute(given)
    assert passed["passed"]


def test_a_package_is_created_once_and_found_again(world: World) -> None:
    operator = RegisterModelOperator(
        task_id="register",
        group="dogs",
        dataset=DATASET,
        evaluation={
            "model_uri": "s3://bucket/jobs/7/output/model.tar.gz",
            "evaluation_uri": "s3://bucket/e.json",
            "predictions_uri": "s3://bucket/p.jsonl",
            "accuracy": 0.9,
        },
    )
    world.packages["arn:package/7"] = runs.package("arn:package/7", 7)
    world.sagemaker_describe_model_package_group = lambda **_: {}  # type: ignore[attr-defined]
    instance = Instance("register")
    result = operator.execute(context(instance))
    assert result == {"model_package_arn": "arn:package/7", "status": "Approved"}
    assert LINK_KEY in instance.pushed
