"""A laptop with everything up, its clients, and the means to break it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psutil
import requests
from botocore.exceptions import BotoCoreError, ClientError

from launcher.airflow_api import AirflowError
from launcher.inputs import Inputs
from launcher.run import DAG_ID, run_conf
from launcher.services import is_ready, services
from launcher.settings import Settings
from tests.airflow_client import connect, scheduler_has_looked
from tests.e2e.conftest import Laptop

# Airflow takes minutes to notice a dead component by default; here seconds must do. Shorter than this, a busy
# machine takes the living for dead.
QUICK_TO_NOTICE = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "20",
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "2",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "20",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
}
UP_SECONDS = 300.0
# A component that is starting again refuses connections; SageMaker's and Airflow's clients say so in these ways.
AWAY = (requests.RequestException, AirflowError, BotoCoreError, ClientError, psutil.NoSuchProcess)


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 600.0, pause: float = 0.2) -> Any:
    """The first true answer of `condition`; a component that is away has none."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(*AWAY):
            if found := condition():
                return found
        assert time.monotonic() < deadline, f"{what}: not in {seconds:.0f} s"
        time.sleep(pause)


@dataclass(frozen=True)
class Job:
    """A paid job as local_aws tells of it. working: its program runs."""

    name: str
    status: str
    created: datetime
    working: bool


class Stage:
    """Runs of `train_and_deploy` on a laptop whose components can be killed."""

    def __init__(self, laptop: Laptop) -> None:
        self.laptop = laptop
        self.settings = Settings.from_environ(laptop.environ)
        self.airflow = connect(self.settings)
        self.sagemaker = laptop.client("sagemaker")

    def start(self, **conf: Any) -> str:
        """Start a run; its id."""
        chosen = Inputs(self.settings.data, "crash", "none")
        return self.airflow.trigger(DAG_ID, {**run_conf(self.settings, chosen), **conf})

    def pid(self, component: str) -> int:
        state = json.loads((self.settings.home / "supervisor.json").read_text())
        return state["children"][component]["pid"]

    def kill(self, component: str) -> None:
        """Kill -9, and wait until the supervisor has started another that answers."""
        before = self.pid(component)
        os.kill(before, signal.SIGKILL)
        wait_for(lambda: self.pid(component) not in (0, before), f"{component} up again", UP_SECONDS, 0.05)
        service = next(found for found in services(self.settings) if found.name == component)
        wait_for(lambda: is_ready(service), f"{component} ready", UP_SECONDS)

    def kill_worker(self, run_id: str, task: str) -> None:
        """Kill -9 the worker that has the task. A task that had deferred before is cleared, to run again."""
        with suppress(psutil.NoSuchProcess):
            self._kill_busy_workers()
        if wait_for(lambda: self.task(run_id, task)["state"], task) == "deferred":
            self.clear(run_id, task)
            self.wait_for_task(run_id, task, "running")
            wait_for(self._kill_busy_workers, f"a worker with {task}", pause=0.01)

    def _kill_busy_workers(self) -> int:
        """Kill the workers that have a task; return their number.

        Never an idle one: it may hold the lock of LocalExecutor's queue (a SimpleQueue of Python's
        multiprocessing), and then no worker started later ever gets a task.
        """
        workers = psutil.Process(self.pid("scheduler")).children()
        busy = [worker for worker in workers if any(map(_lives, worker.children()))]
        for worker in busy:
            worker.kill()
        return len(busy)

    def jobs(self, run_id: str, task: str) -> list[Job]:
        """The jobs that a task of a run created, oldest first; for `tune` without its trials."""
        if task == "tune":
            rows = self._rows("list_hyper_parameter_tuning_jobs", "HyperParameterTuningJobSummaries")
            found = [self._tuning_job(row["HyperParameterTuningJobName"]) for row in rows
                     if self._is_of(run_id, row["HyperParameterTuningJobArn"])]  # fmt: skip
        else:
            rows = self._rows("list_training_jobs", "TrainingJobSummaries", NameContains=f"{task}-")
            found = [self._training_job(row["TrainingJobName"]) for row in rows
                     if self._is_of(run_id, row["TrainingJobArn"])]  # fmt: skip
        return sorted(found, key=lambda job: job.created)

    def running(self, run_id: str, task: str) -> list[Job]:
        return [job for job in self.jobs(run_id, task) if job.status in ("InProgress", "Stopping")]

    def at_work(self, run_id: str, task: str) -> list[Job]:
        """Its jobs whose program runs."""
        return [job for job in self.running(run_id, task) if job.working]

    def stopping(self, run_id: str, task: str) -> bool:
        """Return True once each of its jobs was asked to stop."""
        return all(job.status in ("Stopping", "Stopped") for job in self.jobs(run_id, task))

    @contextmanager
    def frozen(self, job: Job) -> Iterator[None]:
        """Suspend the processes of a training job, or of the trials of a tuning job."""
        found: list[psutil.Process] = []

        def freeze() -> bool:
            for process in psutil.process_iter():
                if _is_of_job(process, job.name):
                    process.suspend()
                    found.append(process)
            # Between two trials, and before the program of one starts, there is none.
            return any(
                process.is_running() and process.status() == psutil.STATUS_STOPPED for process in found
            )

        try:
            wait_for(freeze, f"a process of {job.name} to suspend", pause=0.01)
            yield
        finally:
            for process in found:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    def state(self, run_id: str) -> str:
        return self.airflow.run_state(DAG_ID, run_id)

    def end(self, run_id: str, seconds: float = 600.0) -> str:
        """Wait for the end of a run; its state."""
        return wait_for(lambda: (found := self.state(run_id)) in ("success", "failed") and found,
                        f"end of {run_id}", seconds)  # fmt: skip

    def task(self, run_id: str, task: str) -> dict[str, Any]:
        return next(row for row in self.airflow.task_instances(DAG_ID, run_id) if row["task_id"] == task)

    def wait_for_task(self, run_id: str, task: str, state: str) -> None:
        wait_for(lambda: self.task(run_id, task)["state"] == state, f"{task} {state}", pause=0.05)

    def clear(self, run_id: str, task: str) -> None:
        body = {"dry_run": False, "task_ids": [task], "dag_run_id": run_id, "only_failed": False,
                "only_running": False}  # fmt: skip
        self.airflow.call("POST", f"dags/{DAG_ID}/clearTaskInstances", json=body)

    def mark(self, run_id: str, task: str, state: str) -> None:
        path = f"dags/{DAG_ID}/dagRuns/{run_id}/taskInstances/{task}"
        self.airflow.call("PATCH", path, json={"new_state": state})

    def cancel(self, run_id: str) -> None:
        self.airflow.call("PATCH", f"dags/{DAG_ID}/dagRuns/{run_id}", json={"state": "failed"})

    def settle(self) -> None:
        """Wait until the scheduler knows of every process that has ended."""
        wait_for(scheduler_has_looked(self.airflow), "the scheduler's next heartbeats")

    def time_out(self, run_id: str, task: str) -> None:
        """Bring the end of a deferred task's time-out, a day ahead, to now: only the database knows it."""
        with sqlite3.connect(self.settings.airflow_home / "airflow.db", timeout=30) as database:
            changed = database.execute(
                "update task_instance set trigger_timeout = '2000-01-01 00:00:00.000000' "
                "where run_id = ? and task_id = ? and state = 'deferred'",
                (run_id, task),
            )
            assert changed.rowcount == 1

    def _rows(self, method: str, key: str, **arguments: Any) -> list[dict[str, Any]]:
        pages = self.sagemaker.get_paginator(method).paginate(**arguments)
        return [row for page in pages for row in page[key]]

    def _is_of(self, run_id: str, arn: str) -> bool:
        return any(tag["Value"] == run_id for tag in self.sagemaker.list_tags(ResourceArn=arn)["Tags"])

    def _training_job(self, name: str) -> Job:
        found = self.sagemaker.describe_training_job(TrainingJobName=name)
        working = found["SecondaryStatus"] == "Training"
        return Job(name, found["TrainingJobStatus"], found["CreationTime"], working)

    def _tuning_job(self, name: str) -> Job:
        found = self.sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
        trials = self.sagemaker.list_training_jobs_for_hyper_parameter_tuning_job(
            HyperParameterTuningJobName=name
        )["TrainingJobSummaries"]
        working = any(trial["TrainingJobStatus"] == "InProgress" for trial in trials)
        return Job(name, found["HyperParameterTuningJobStatus"], found["CreationTime"], working)


def _is_of_job(process: psutil.Process, name: str) -> bool:
    try:
        found = process.environ().get("TRAINING_JOB_NAME", "")
        # The name of a trial begins with that of its search.
        return found == name or found.startswith(f"{name}-")
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return False


def _lives(process: psutil.Process) -> bool:
    return process.status() != psutil.STATUS_ZOMBIE
