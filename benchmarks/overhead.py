"""`overhead`: the time orchestration adds to a run: its wall time less the jobs on its critical path, by task.

A task of that path waits (from the end of the one before it to its own start) and runs; while it runs, the job
it started exists at SageMaker. What is left of both is overhead. An upload or a smoke test has no job and counts
whole. The limit is a run of a DAG with the same tasks in the same order that do nothing: Airflow itself.

    python -m benchmarks.overhead [--data DIR --weights FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks._airflow import Running, running, wait_until
from launcher.preflight import free_port
from launcher.run import DAG_ID
from launcher.settings import REPOSITORY, Settings
from ml_pipeline.aws.jobs import JobKind
from ml_pipeline.operators.links import LINK_KEY
from model_code.data import sample_data

RUN_SECONDS = 900.0
SAME_SHAPE = "same_shape"
_SAME_SHAPE = """
from airflow.sdk import DAG, task

@task
def nothing():
    pass

with DAG("{dag_id}", schedule=None):
    tasks = {{name: nothing.override(task_id=name)() for name in {names}}}
    for before, after in {edges}:
        tasks[before] >> tasks[after]
"""


@dataclass(frozen=True)
class Step:
    """A task of the critical path, in seconds. job: None where it started none."""

    task: str
    waited: float
    ran: float
    job: float | None

    @property
    def overhead(self) -> float:
        return self.waited + self.ran - (self.job or 0.0)


def main() -> None:
    """Measure, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="photos; a small drawn set by default")
    parser.add_argument("--weights", default="none", help="a state_dict file, imagenet or none")
    parser.add_argument("--trials", type=int, default=4)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
        steps, limit = measure(Path(folder), chosen)
    print(f"\n{'task':<16}{'waited':>9}{'ran':>9}{'job':>9}{'overhead':>10}   seconds")
    for step in steps:
        job = "-" if step.job is None else f"{step.job:.2f}"
        print(f"{step.task:<16}{step.waited:9.2f}{step.ran:9.2f}{job:>9}{step.overhead:10.2f}")
    wall, overhead = sum(step.waited + step.ran for step in steps), sum(step.overhead for step in steps)
    print(f"{'whole run':<16}{wall:18.2f}{wall - overhead:9.2f}{overhead:10.2f}")
    print(f"the same tasks doing nothing: {limit:.2f} s")
    result = {
        "name": "overhead",
        "figure": round(overhead, 1),
        "unit": "s of a run, jobs excluded",
        "limit": round(limit, 1),
        "peers": {},
        "ratio": round(overhead / limit, 2),
        "conditions": {
            "data": chosen.data.name if chosen.data else "drawn", "trials": chosen.trials,
            "wall_s": round(wall, 1), "tasks": len(steps), "cores": os.cpu_count(),
            "ratio": "figure over limit (Airflow alone)",
        },
    }  # fmt: skip
    print(json.dumps(result))


def measure(folder: Path, chosen: argparse.Namespace) -> tuple[list[Step], float]:
    """The critical path of one run, and the wall time of its do-nothing likeness."""
    data = chosen.data or folder / "photos"
    if chosen.data is None:
        sample_data.draw(data)
    dags = folder / "dags"
    dags.mkdir()
    (dags / f"{DAG_ID}.py").symlink_to(REPOSITORY / "dags" / f"{DAG_ID}.py")
    settings = Settings(folder / "home", free_port(), free_port())
    conf = {"data": str(data), "dataset_name": "overhead", "weights": chosen.weights, "trials": chosen.trials}
    with running(settings, dags) as services:
        services.wait_for_dag(DAG_ID)
        rows, started = finished(services, DAG_ID, conf)
        edges = edges_of(services.airflow.call("GET", f"dags/{DAG_ID}/tasks")["tasks"], set(rows))
        (dags / f"{SAME_SHAPE}.py").write_text(
            _SAME_SHAPE.format(dag_id=SAME_SHAPE, names=sorted(rows), edges=edges)
        )
        services.wait_for_dag(SAME_SHAPE)
        idle, idle_started = finished(services, SAME_SHAPE, {})
        steps = [step_of(services, row, since) for row, since in critical_path(rows, edges, started)]
    return steps, max(end_of(row) for row in idle.values()) - idle_started


def finished(services: Running, dag_id: str, conf: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], float]:
    """A run from start to success: its task instances that ran, by task, and when it started."""
    client = services.airflow
    run_id = client.trigger(dag_id, conf)
    state = wait_until(
        lambda: (found := client.run_state(dag_id, run_id)) in ("success", "failed") and found,
        RUN_SECONDS, dag_id,
    )  # fmt: skip
    rows = {row["task_id"]: row for row in client.task_instances(dag_id, run_id)}
    if state != "success":
        failed = [name for name, row in rows.items() if row["state"] == "failed"]
        raise SystemExit(f"{dag_id} failed in {', '.join(failed)}")
    run = client.call("GET", f"dags/{dag_id}/dagRuns/{run_id}")
    ran = {name: row for name, row in rows.items() if row["state"] == "success"}
    return ran, seconds(run["queued_at"])


def edges_of(tasks: list[dict[str, Any]], ran: set[str]) -> list[tuple[str, str]]:
    """(before, after) of the tasks that ran."""
    found = [(task["task_id"], after) for task in tasks for after in task["downstream_task_ids"]]
    return [(before, after) for before, after in found if {before, after} <= ran]


def critical_path(
    rows: dict[str, dict[str, Any]], edges: list[tuple[str, str]], started: float
) -> list[tuple[dict[str, Any], float]]:
    """From the first task to the one that ended last, each with the moment from which only it was waited for."""
    row = max(rows.values(), key=end_of)
    path = []
    while True:
        before = [rows[name] for name, after in edges if after == row["task_id"]]
        last = max(before, key=end_of, default=None)
        path.append((row, started if last is None else end_of(last)))
        if last is None:
            return path[::-1]
        row = last


def step_of(services: Running, row: dict[str, Any], since: float) -> Step:
    """A task instance with the seconds of the job it started."""
    start = seconds(row["start_date"])
    return Step(row["task_id"], start - since, end_of(row) - start, job_seconds(services, row))


def job_seconds(services: Running, row: dict[str, Any]) -> float | None:
    """Seconds from the creation of the task's job to its end; an endpoint ends when it is in service."""
    path = f"dags/{row['dag_id']}/dagRuns/{row['dag_run_id']}/taskInstances/{row['task_id']}/xcomEntries"
    keys = {entry["key"] for entry in services.airflow.call("GET", path)["xcom_entries"]}
    if LINK_KEY not in keys:
        return None
    job = services.airflow.call("GET", f"{path}/{LINK_KEY}", params={"stringify": "false"})["value"]
    sagemaker = services.aws("sagemaker")
    if job["kind"] == "endpoint":
        found = sagemaker.describe_endpoint(EndpointName=job["name"])
        return (found["LastModifiedTime"] - found["CreationTime"]).total_seconds()
    if job["kind"] not in set(JobKind):
        return None
    calls = JobKind(job["kind"]).calls
    found = getattr(sagemaker, calls.describe)(**{calls.name: job["name"]})
    end = next(found[key] for key in found if key.endswith("EndTime"))
    return (end - found["CreationTime"]).total_seconds()


def end_of(row: dict[str, Any]) -> float:
    return seconds(row["end_date"])


def seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()


if __name__ == "__main__":
    main()
