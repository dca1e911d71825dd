"""kill -9 of each component in the middle of tuning and of training: the run ends well, no job is paid twice.

Conversely, a job whose task is over, other than by a clear, is stopped.
"""

import os
import signal
from typing import Any

import pytest

from tests.e2e.conftest import make_laptop
from tests.e2e.stage import QUICK_TO_NOTICE, Stage, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(1800)]

# Each lasts longer than these tests look at it. Trials have the epochs of the final job, but nothing to export.
LONG: dict[str, dict[str, Any]] = {
    "tune": {"trials": 200, "parallel_trials": 1},
    "train": {"trials": 1, "hyperparameters": {"epochs": 250}},
}
WAYS = ("failed", "success", "cancelled", "timed out")


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    laptop = make_laptop(tmp_path_factory.mktemp("crash"))
    laptop.environ.update(QUICK_TO_NOTICE)
    try:
        laptop.up()
        yield Stage(laptop)
    finally:
        laptop.launcher("stop")


@pytest.mark.parametrize("component", ["worker", "triggerer", "scheduler", "api-server", "local_aws"])
def test_kill_9_in_the_middle_of_tuning_and_of_training_pays_no_job_twice(stage, component):
    run_id = stage.start()
    for task in ("tune", "train"):
        # A worker has its task only for moments after the job was created; the others are hit while it works.
        seen = stage.running if component == "worker" else stage.at_work
        wait_for(lambda task=task, seen=seen: seen(run_id, task), f"{task} job in progress", pause=0.01)
        if component == "worker":
            stage.kill_worker(run_id, task)  # no exception, no on_kill, only a heartbeat that stops
        else:
            stage.kill(component)
    assert stage.end(run_id) == "success"
    for task in ("tune", "train"):
        # Also after the end of local_aws, where the job itself was lost: it starts again under its name.
        jobs = stage.jobs(run_id, task)
        assert [job.status for job in jobs] == ["Completed"], jobs
        assert component != "worker" or stage.task(run_id, task)["try_number"] > 1


def test_cleared_and_retried_tasks_adopt_their_job(stage):
    run_id = stage.start()
    (job,) = wait_for(lambda: stage.running(run_id, "tune"), "tuning in progress")
    stage.wait_for_task(run_id, "tune", "deferred")
    stage.clear(run_id, "tune")
    stage.wait_for_task(run_id, "tune", "running")
    stage.kill_worker(run_id, "tune")
    assert stage.end(run_id) == "success"
    assert stage.task(run_id, "tune")["try_number"] >= 3
    assert [(found.name, found.status) for found in stage.jobs(run_id, "tune")] == [(job.name, "Completed")]


@pytest.mark.parametrize("triggerer", ["alive", "dead"])
@pytest.mark.parametrize("task", LONG)
def test_a_job_without_a_waiting_task_is_stopped(stage, task, triggerer):
    for way in WAYS:
        run_id = stage.start(**LONG[task])
        (job,) = wait_for(lambda run_id=run_id: stage.at_work(run_id, task), f"{way}: {task} at work")
        # However slow this machine is, the job does not complete before it is stopped.
        with stage.frozen(job):
            stage.wait_for_task(run_id, task, "deferred")
            if way == "timed out":
                stage.settle()
            if triggerer == "dead":
                # Another one needs seconds to start; what follows takes one.
                os.kill(stage.pid("triggerer"), signal.SIGKILL)
            end_task(stage, way, run_id, task)
            wait_for(lambda run_id=run_id: stage.stopping(run_id, task), f"{way}: the job to be stopped")
        stage.end(run_id)
        found = [(job.name, job.status) for job in stage.jobs(run_id, task)]
        assert found == [(job.name, "Stopped")], way
        assert task == "train" or stage.jobs(run_id, "train") == [], way


def end_task(stage, way, run_id, task):
    if way == "cancelled":
        stage.cancel(run_id)
    elif way == "timed out":
        stage.time_out(run_id, task)
    else:
        stage.mark(run_id, task, way)
