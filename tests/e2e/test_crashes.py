"""kill -9 of each component in the middle of tuning and of training: the run ends well, no job is paid twice.

And the other way round: what nobody waits for any more (cleared apart) is stopped.
"""

import json
import os
import signal
import time

import boto3
import psutil
import pytest

from launcher.airflow_api import AirflowClient, AirflowError
from launcher.inputs import Inputs
from launcher.run import DAG_ID, run_conf
from launcher.settings import Secrets, Settings
from tests.e2e.conftest import make_laptop

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(900)]

# Airflow takes minutes to notice a dead component by default; here seconds must do.
QUICK_TO_NOTICE = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
}
JOB_OF = {"tune": "tuning", "train": "training"}


def wait_for(condition, what, seconds=240.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not in {seconds:.0f} s"
        time.sleep(0.2)
    return found


class Stage:
    """A laptop with everything up, its clients, and the means to break it."""

    def __init__(self, laptop):
        self.laptop = laptop
        self.settings = Settings.from_environ(laptop.environ)
        password = Secrets.load_or_create(self.settings.home).admin_password
        self.airflow = AirflowClient(self.settings.airflow_url, "admin", password)
        self.sagemaker = boto3.client(
            "sagemaker", endpoint_url=laptop.local_aws_url, region_name="us-east-1",
            aws_access_key_id="local", aws_secret_access_key="local",
        )  # fmt: skip

    def start(self, **conf):
        chosen = Inputs(self.settings.data, "crash", "none")
        merged = {**run_conf(self.settings, chosen), "epochs": 400, **conf}
        return self.airflow.trigger(DAG_ID, merged)

    def pid(self, component):
        state = json.loads((self.settings.home / "supervisor.json").read_text())
        return state["children"][component]["pid"]

    def kill(self, component):
        """kill -9, and wait until the supervisor has started another."""
        if component == "worker":
            for worker in psutil.Process(self.pid("scheduler")).children(recursive=True):
                with_suppressed_kill(worker)
            return
        before = self.pid(component)
        os.kill(before, signal.SIGKILL)
        wait_for(lambda: self.pid(component) not in (0, before), f"{component} up again")

    def jobs_of(self, run_id, kind):
        """Names of the jobs that this run created, from local_aws."""
        if kind == "tuning":
            pages = self.sagemaker.get_paginator("list_hyper_parameter_tuning_jobs").paginate()
            rows = [row for page in pages for row in page["HyperParameterTuningJobSummaries"]]
            found = [(row["HyperParameterTuningJobName"], row["HyperParameterTuningJobArn"],
                      row["HyperParameterTuningJobStatus"]) for row in rows]  # fmt: skip
        else:
            pages = self.sagemaker.get_paginator("list_training_jobs").paginate()
            rows = [row for page in pages for row in page["TrainingJobSummaries"]]
            found = [(row["TrainingJobName"], row["TrainingJobArn"], row["TrainingJobStatus"])
                     for row in rows if row["TrainingJobName"].startswith("train-")]  # fmt: skip
        return {name: status for name, arn, status in found if self._is_of(run_id, arn)}

    def _is_of(self, run_id, arn):
        tags = self.sagemaker.list_tags(ResourceArn=arn)["Tags"]
        return any(tag["Value"] == run_id for tag in tags)

    def in_progress(self, run_id, kind):
        return [name for name, status in self.jobs_of(run_id, kind).items() if status == "InProgress"]

    def state(self, run_id):
        try:
            return self.airflow.run_state(DAG_ID, run_id)
        except (AirflowError, OSError):
            return "unknown"

    def task_state(self, run_id, task):
        rows = self.airflow.task_instances(DAG_ID, run_id)
        return next(row["state"] for row in rows if row["task_id"] == task)


def with_suppressed_kill(process):
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    laptop = make_laptop(tmp_path_factory.mktemp("crash"))
    laptop.environ.update(QUICK_TO_NOTICE)
    up = laptop.launcher("up")
    assert up.returncode == 0, up.stdout
    yield Stage(laptop)
    laptop.launcher("stop")


@pytest.mark.parametrize("task", ["tune", "train"])
@pytest.mark.parametrize("component", ["worker", "triggerer", "scheduler", "api-server", "local_aws"])
def test_kill_9_in_the_middle_pays_no_job_twice(stage, component, task):
    run_id = stage.start()
    wait_for(lambda: stage.in_progress(run_id, JOB_OF[task]), f"{task} job in progress")
    stage.kill(component)
    wait_for(lambda: stage.state(run_id) in ("success", "failed"), "end of the run", 400)
    assert stage.state(run_id) == "success"
    for kind in JOB_OF.values():
        jobs = stage.jobs_of(run_id, kind)
        completed = [name for name, status in jobs.items() if status == "Completed"]
        assert len(completed) == 1, jobs
        if component == "local_aws":
            # The machine that ran the job died with it: that job's end is told, and a new one was needed.
            assert all(status in ("Completed", "Failed") for status in jobs.values()), jobs
        else:
            assert len(jobs) == 1, jobs


@pytest.mark.parametrize("way", ["clear", "retry"])
def test_a_cleared_task_adopts_its_job(stage, way):
    run_id = stage.start()
    (job,) = wait_for(lambda: stage.in_progress(run_id, "training"), "training in progress")
    wait_for(lambda: stage.task_state(run_id, "train") == "deferred", "train deferred")
    if way == "clear":
        body = {"dry_run": False, "task_ids": ["train"], "dag_run_id": run_id, "only_failed": False,
                "only_running": False}  # fmt: skip
        stage.airflow.call("POST", f"dags/{DAG_ID}/clearTaskInstances", json=body)
    else:
        stage.kill("triggerer")
    wait_for(lambda: stage.state(run_id) in ("success", "failed"), "end of the run", 400)
    assert stage.state(run_id) == "success"
    assert stage.jobs_of(run_id, "training") == {job: "Completed"}


@pytest.mark.parametrize("triggerer", ["alive", "dead"])
@pytest.mark.parametrize("way", ["failed", "success", "cancelled"])
def test_a_job_nobody_waits_for_is_stopped(stage, way, triggerer):
    run_id = stage.start(epochs=5000)
    (job,) = wait_for(lambda: stage.in_progress(run_id, "training"), "training in progress")
    wait_for(lambda: stage.task_state(run_id, "train") == "deferred", "train deferred")
    pause = psutil.Process(stage.pid("triggerer"))
    if triggerer == "dead":
        pause.kill()
    if way == "cancelled":
        stage.airflow.call("PATCH", f"dags/{DAG_ID}/dagRuns/{run_id}", json={"state": "failed"})
    else:
        path = f"dags/{DAG_ID}/dagRuns/{run_id}/taskInstances/train"
        stage.airflow.call("PATCH", path, json={"new_state": way})
    wait_for(lambda: not stage.in_progress(run_id, "training"), "the job to be stopped", 120)
    assert stage.jobs_of(run_id, "training") == {job: "Stopped"}
    wait_for(lambda: stage.state(run_id) in ("success", "failed"), "end of the run", 400)
