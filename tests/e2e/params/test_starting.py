"""Automatic starts of runs: new photos, announced through SQS, and the clock, which also finds lost messages."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.params.conftest import ACCOUNT, QUEUE, QUEUE_URL, TEAM
from tests.e2e.params.stage import TRAIN, Stage

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(1200)]

RETRAIN = "scheduled_retraining"


@pytest.fixture(scope="module")
def told_by_s3(stage: Stage) -> str:
    """The run that photos in S3 started."""
    s3 = stage.client("s3")
    s3.create_bucket(Bucket=TEAM)
    announce(s3, [{"QueueArn": f"arn:aws:sqs:us-east-1:{ACCOUNT}:{QUEUE}", "Events": ["s3:ObjectCreated:*"]}])
    stage.airflow.call("PATCH", f"dags/{RETRAIN}", json={"is_paused": False})
    for photo in sorted(stage.photos.glob("*/*.jpg")):
        upload(s3, photo)
    run_id = stage.wait(lambda: next(iter(runs(stage)), None), "a run that photos started")
    stage.finish(run_id, "success", RETRAIN)
    return run_id


def announce(s3: Any, queues: list[dict[str, Any]]) -> None:
    s3.put_bucket_notification_configuration(
        Bucket=TEAM, NotificationConfiguration={"QueueConfigurations": queues}
    )


def upload(s3: Any, photo: Path) -> None:
    s3.upload_file(str(photo), TEAM, f"photos/{photo.parent.name}/{photo.name}")


def runs(stage: Stage) -> list[str]:
    rows = stage.airflow.call("GET", f"dags/{RETRAIN}/dagRuns")["dag_runs"]
    return [row["dag_run_id"] for row in rows if row["run_type"] == "asset_triggered"]


def named(stage: Stage, dag_id: str) -> list[str]:
    """The ids of a DAG's runs, the oldest first."""
    rows = stage.airflow.call("GET", f"dags/{dag_id}/dagRuns", params={"order_by": "run_after"})["dag_runs"]
    return [row["dag_run_id"] for row in rows]


def reason(stage: Stage, run_id: str) -> str:
    path = f"dags/{RETRAIN}/dagRuns/{run_id}/taskInstances/decide/xcomEntries/reason"
    return str(stage.airflow.call("GET", path)["value"])


def clear(stage: Stage, run_id: str, task: str) -> None:
    body = {"dry_run": False, "task_ids": [task], "dag_run_id": run_id, "only_failed": False}
    stage.airflow.call("POST", f"dags/{RETRAIN}/clearTaskInstances", json=body)


def tries(stage: Stage, run_id: str, *tasks: str) -> dict[str, int]:
    """Count the tries of the tasks of the training run."""
    rows = stage.airflow.task_instances(TRAIN, run_id)
    return {row["task_id"]: row["try_number"] for row in rows if row["task_id"] in tasks}


def test_new_photos_train_a_model_and_their_messages_go_last(stage: Stage, told_by_s3: str) -> None:
    events = stage.airflow.call("GET", f"dags/{RETRAIN}/dagRuns/{told_by_s3}/upstreamAssetEvents")[
        "asset_events"
    ]
    assert events
    assert events[0]["extra"]["payload"]["bucket"] == TEAM
    # The training run has the name of the run that started it, and its params from the team's defaults. Where the
    # photos were slow to come, the clock's first run has seen them before. Tests of other files may have trained, too.
    started = set(named(stage, RETRAIN))
    trained = next(run_id for run_id in named(stage, TRAIN) if run_id in started)
    assert "has no approved model yet" in reason(stage, trained)
    assert stage.result(trained, "smoke_test")["photos"] > 0
    assert stage.result(trained, "deploy")["endpoint_name"] == TEAM
    counts = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")

    def emptied() -> bool:
        found = stage.client("sqs").get_queue_attributes(QueueUrl=queue(stage), AttributeNames=counts)
        return [found["Attributes"][name] for name in counts] == ["0", "0"]

    stage.wait(emptied, "the queue to be empty", 60)


def queue(stage: Stage) -> str:
    return QUEUE_URL.format(stage.laptop.local_aws_url)


def test_the_clock_finds_nothing_to_do_and_says_so(stage: Stage, told_by_s3: str) -> None:
    run_id = stage.run(RETRAIN)
    assert stage.states(run_id, RETRAIN)["train"] == "skipped"
    told = reason(stage, run_id)
    assert told.startswith("nothing to do: ")
    assert "was trained on this version" in told


def test_the_clock_finds_photos_without_a_notification(stage: Stage, told_by_s3: str, tmp_path: Path) -> None:
    s3, before = stage.client("s3"), len(runs(stage))
    announce(s3, [])
    folder = tmp_path / next(stage.photos.iterdir()).name
    folder.mkdir()
    upload(s3, Path(shutil.copy(stage.laptop.folder / "late.jpg", folder)))
    # Refused by its plan: that it is started is all that has to be seen.
    run_id = stage.start(RETRAIN, conf={"budget_usd": 0})
    stage.finish(run_id, "failed", RETRAIN)
    assert "the photos changed" in reason(stage, run_id)
    assert stage.states(run_id)["plan"] == "failed"
    assert len(runs(stage)) == before
    # That there is a training run does not make the task green: it is run again, and refused again.
    clear(stage, run_id, "train")
    stage.finish(run_id, "failed", RETRAIN)
    assert stage.states(run_id, RETRAIN)["train"] == "failed"
    assert tries(stage, run_id, "plan") == {"plan": 2}


def test_a_cleared_task_waits_for_its_training_run(stage: Stage, told_by_s3: str) -> None:
    # Another seed makes another version of the same photos, in both runs the same.
    run_id = stage.start(RETRAIN, seed=7, conf={"approval": "human"})
    stage.wait_for_task(run_id, "train", "deferred", dag_id=RETRAIN)
    stage.parked(run_id)
    clear(stage, run_id, "train")
    stage.wait(lambda: "is under way" in stage.log(run_id, "train", RETRAIN), "the task to find the run")
    stage.approve(run_id)
    stage.finish(run_id, "success", RETRAIN)
    assert stage.states(run_id, RETRAIN)["train"] == "success"
    paid = {"embed": 1, "tune": 1, "train": 1}
    assert tries(stage, run_id, *paid) == paid
    again = stage.run(RETRAIN, seed=7)
    assert stage.states(again, RETRAIN)["train"] == "skipped"
