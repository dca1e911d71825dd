"""Real Airflow and local_aws, up for many runs: start them over REST, look at them from both sides."""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import requests

from launcher.settings import Settings
from ml_pipeline.aws.s3 import split_uri
from tests.airflow_client import connect, scheduler_has_looked
from tests.e2e.conftest import Laptop

T = TypeVar("T")
log = logging.getLogger(__name__)
TRAIN = "train_and_deploy"
PAUSE_SECONDS = 0.5
# A run takes a minute; many times that where other work shares the machine.
LONGEST_RUN_SECONDS = 480.0
# A few seconds of work a job, whatever the photos.
TOY = {
    "architecture": "squeezenet1_1",
    "weights": "none",
    "min_accuracy": 0.0,
    # Trained on random features: which of two models is better is chance.
    "margin": 1.0,
    "trials": 1,
    "tune_mode": "packed",
    "hyperparameters": {"epochs": 2},
}


class Stage:
    """Services that are up, and clients of both sides."""

    def __init__(self, laptop: Laptop) -> None:
        self.laptop = laptop
        self.settings = Settings.from_environ(laptop.environ)
        self.airflow = connect(self.settings)

    def client(self, service: str) -> Any:
        """A boto3 client of local_aws."""
        return self.laptop.client(service)

    @property
    def photos(self) -> Path:
        """The folder that the laptop drew."""
        return self.laptop.folder / "photos"

    def start(self, dag_id: str = TRAIN, **conf: Any) -> str:
        """Start a run; its id. A training run gets TOY and the drawn photos unless `conf` says otherwise."""
        if dag_id == TRAIN:
            conf = {"data": str(self.photos), **TOY, **conf}
        return self.airflow.trigger(dag_id, conf)

    def run(self, dag_id: str = TRAIN, **conf: Any) -> str:
        """Start a run and see it succeed; its id."""
        run_id = self.start(dag_id, **conf)
        self.finish(run_id, "success", dag_id)
        return run_id

    def finish(
        self, run_id: str, state: str, dag_id: str = TRAIN, seconds: float = LONGEST_RUN_SECONDS
    ) -> None:
        """Wait until the run has ended; it must end as `state`."""
        self.wait(
            lambda: self.state(run_id, dag_id) in ("success", "failed"), f"the end of {run_id}", seconds
        )
        log.info("%s", self.times(run_id, dag_id))
        if self.state(run_id, dag_id) != state:
            raise AssertionError(
                f"{run_id} is not {state}: {self.states(run_id, dag_id)}\n{self.failures(run_id, dag_id)}"
            )

    def state(self, run_id: str, dag_id: str = TRAIN) -> str:
        """The run's state."""
        return self.airflow.run_state(dag_id, run_id)

    def times(self, run_id: str, dag_id: str = TRAIN) -> str:
        """Seconds of the run and of its tasks, for the log."""
        run = self.airflow.call("GET", f"dags/{dag_id}/dagRuns/{run_id}")
        tasks = self.airflow.task_instances(dag_id, run_id)
        told = " ".join(f"{row['task_id']}={row['duration']:.0f}" for row in tasks if row["duration"])
        return f"{dag_id} {run_id}: {run['duration'] or 0:.0f} s: {told}"

    def states(self, run_id: str, dag_id: str = TRAIN) -> dict[str, str]:
        """Task -> state."""
        rows = self.airflow.task_instances(dag_id, run_id)
        return {row["task_id"]: str(row["state"]) for row in rows}

    def wait_for_task(self, run_id: str, task: str, *states: str, dag_id: str = TRAIN) -> str:
        """Wait until the task is in one of `states`; which one. Once the run has ended, it never will be."""

        def reached() -> str | None:
            ended = self.state(run_id, dag_id) in ("success", "failed")
            state = self.states(run_id, dag_id)[task]
            if ended and state not in states:
                raise AssertionError(f"{task} of {run_id} is {state}\n{self.failures(run_id, dag_id)}")
            return state if state in states else None

        return self.wait(reached, f"{task} of {run_id} to be {' or '.join(states)}")

    def log(self, run_id: str, task: str, dag_id: str = TRAIN) -> str:
        """The task's log, all tries together."""
        row = next(row for row in self.airflow.task_instances(dag_id, run_id) if row["task_id"] == task)
        tries = range(1, max(row["try_number"], 1) + 1)
        return "\n".join(
            line
            for number in tries
            for line in self.airflow.log(dag_id, run_id, {**row, "try_number": number})
        )

    def failures(self, run_id: str, dag_id: str = TRAIN) -> str:
        """The ends of the logs of failed tasks."""
        failed = [task for task, state in self.states(run_id, dag_id).items() if state == "failed"]
        return "\n".join(f"{task}: ...{self.log(run_id, task, dag_id)[-3000:]}" for task in failed)

    def result(self, run_id: str, task: str, dag_id: str = TRAIN) -> Any:
        """Return the result of the task."""
        return self.airflow.xcom(dag_id, run_id, task)

    def jobs(self, run_id: str) -> dict[str, str]:
        """Name -> status of the paid jobs that carry the run's tag, on the side of local_aws."""
        sagemaker = self.client("sagemaker")
        found = {}
        for kind, prefix in (
            ("training_jobs", "TrainingJob"),
            ("processing_jobs", "ProcessingJob"),
            ("hyper_parameter_tuning_jobs", "HyperParameterTuningJob"),
        ):
            for page in sagemaker.get_paginator(f"list_{kind}").paginate():
                for row in page[f"{prefix}Summaries"]:
                    tags = sagemaker.list_tags(ResourceArn=row[f"{prefix}Arn"])["Tags"]
                    if {"Key": "run_id", "Value": run_id} in tags:
                        found[row[f"{prefix}Name"]] = row[f"{prefix}Status"]
        return found

    def paid_once(self, run_id: str) -> None:
        """Every job of the run was created once: the number at the end of its name rises only after one that failed."""
        jobs = self.jobs(run_id)
        # Trials belong to their search.
        pieces = Counter(
            re.sub(r"-\d+$", "", name) for name in jobs if re.fullmatch(r"[a-z]+-[0-9a-f]{12}-\d+", name)
        )
        assert pieces, run_id
        assert set(pieces.values()) == {1}, jobs
        assert set(jobs.values()) == {"Completed"}, jobs

    def parked(self, run_id: str) -> str:
        """Wait until the run asks for approval; its id."""
        self.wait_for_task(run_id, "approve", "awaiting_input")
        return run_id

    def approve(self, run_id: str) -> None:
        """Approve the run's model, as a person would in the UI: no sooner than people do."""
        path = f"dags/{TRAIN}/dagRuns/{self.parked(run_id)}/taskInstances/approve/-1/hitlDetails"
        self.wait(scheduler_has_looked(self.airflow), "the scheduler's next heartbeats")
        self.airflow.call("PATCH", path, json={"chosen_options": ["Approve"], "params_input": {}})

    def object(self, uri: str) -> bytes:
        """The bytes at an s3:// address."""
        bucket, key = split_uri(uri)
        body: bytes = self.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
        return body

    def put(self, uri: str, body: bytes) -> None:
        """Write the bytes at an s3:// address."""
        bucket, key = split_uri(uri)
        self.client("s3").put_object(Bucket=bucket, Key=key, Body=body)

    def machines(self, group: str, job: str) -> int:
        """Count the machines of a job that left a log."""
        found = self.client("logs").describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{job}/")
        return len(found["logStreams"])

    def wait(self, condition: Callable[[], T | None], what: str, seconds: float = LONGEST_RUN_SECONDS) -> T:
        """Wait for a condition with a deadline; what it found."""
        deadline = time.monotonic() + seconds
        while True:
            # On a busy machine the api-server may take longer than its client waits.
            with suppress(requests.Timeout, requests.ConnectionError):
                if found := condition():
                    return found
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: not within {seconds:.0f} s")
            time.sleep(PAUSE_SECONDS)


@contextmanager
def stage_on(laptop: Laptop) -> Iterator[Stage]:
    """A stage on `laptop`; every process of it ends with it."""
    try:
        laptop.up()
        yield Stage(laptop)
    finally:
        laptop.launcher("stop")
