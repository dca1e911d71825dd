"""`run-wall`: wall time of the whole main job, environment built, and the peak memory of each job.

The limit is the work that no orchestration can take away: the seconds in which a job of the run was executing
(local_aws is asked over boto3).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks._shared import need, shared

BAR_SECONDS = 360.0


class PeakMemory(threading.Thread):
    """Samples the unique memory of each job's process tree (children of local_aws), in bytes."""

    def __init__(self, home: Path) -> None:
        super().__init__(daemon=True)
        self.home = home
        self.peak = 0
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.5):
            for job in self._jobs():
                self.peak = max(self.peak, _tree_bytes(job))

    def _jobs(self) -> list[psutil.Process]:
        try:
            state = json.loads((self.home / "supervisor.json").read_text())
            return psutil.Process(state["children"]["local_aws"]["pid"]).children()
        except (OSError, KeyError, ValueError, psutil.Error):
            return []


def _tree_bytes(root: psutil.Process) -> int:
    total = 0
    for process in [root, *_children(root)]:
        try:
            total += process.memory_full_info().uss
        except psutil.Error:
            continue
    return total


def _children(root: psutil.Process) -> list[psutil.Process]:
    try:
        return root.children(recursive=True)
    except psutil.Error:
        return []


def job_seconds(endpoint_url: str, state: Path) -> float:
    """Seconds in which at least one job was executing (overlapping jobs count once)."""
    import boto3

    from local_aws.iam.credentials import root_key

    key = root_key(state)
    client = boto3.client(
        "sagemaker", endpoint_url=endpoint_url, region_name="us-east-1",
        aws_access_key_id=key.id, aws_secret_access_key=key.secret,
    )  # fmt: skip
    spans = []
    for row in client.list_training_jobs(MaxResults=100)["TrainingJobSummaries"]:
        job = client.describe_training_job(TrainingJobName=row["TrainingJobName"])
        spans.append((job.get("TrainingStartTime"), job.get("TrainingEndTime")))
    for row in client.list_processing_jobs(MaxResults=100)["ProcessingJobSummaries"]:
        job = client.describe_processing_job(ProcessingJobName=row["ProcessingJobName"])
        spans.append((job.get("ProcessingStartTime"), job.get("ProcessingEndTime")))
    return union_seconds([(start.timestamp(), end.timestamp()) for start, end in spans if start and end])


def union_seconds(spans: list[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(end - max(start, reached), 0.0)
        reached = max(reached, end)
    return total


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, default=shared("data/stanford-dogs"))
    arguments.add_argument("--weights", type=Path, default=shared("weights/mobilenet_v2_imagenet.pth"))
    arguments.add_argument("--trials", type=int, default=12)
    arguments.add_argument("--airflow-port", type=int, default=8181)
    arguments.add_argument("--local-aws-port", type=int, default=4666)
    chosen = arguments.parse_args()
    need(chosen.data, chosen.weights)
    with tempfile.TemporaryDirectory(prefix="run-wall-") as folder:
        result = measure(chosen, Path(folder))
    print(json.dumps(result))
    return 0 if result["figure"] is not None else 1


def measure(chosen: argparse.Namespace, home: Path) -> dict[str, Any]:
    environ = {
        **os.environ,
        "ML_PIPELINE_HOME": str(home),
        "DATA": str(chosen.data), "WEIGHTS": str(chosen.weights), "TRIALS": str(chosen.trials),
        "AIRFLOW_PORT": str(chosen.airflow_port), "LOCAL_AWS_PORT": str(chosen.local_aws_port),
    }  # fmt: skip
    memory = PeakMemory(home)
    memory.start()
    try:
        started = time.monotonic()
        exit_code = subprocess.call([sys.executable, "-m", "launcher", "run"], env=environ)
        seconds = time.monotonic() - started
        memory.done.set()
        url = f"http://127.0.0.1:{chosen.local_aws_port}"
        jobs = job_seconds(url, home / "local_aws") if exit_code == 0 else 0.0
    finally:
        memory.done.set()
        subprocess.call([sys.executable, "-m", "launcher", "stop"], env=environ)
    print(f"\n{'wall time of the run':<34}{seconds:8.1f} s   (bar: {BAR_SECONDS:.0f} s)")
    print(f"{'of which jobs were executing':<34}{jobs:8.1f} s   (limit: no orchestration takes this away)")
    print(f"{'peak memory of a job':<34}{memory.peak / 1e6:8.0f} MB  (bar: 2000 MB)")
    return {
        "name": "run-wall",
        "figure": round(seconds, 1) if exit_code == 0 else None,
        "unit": "s",
        "limit": round(jobs, 1),
        "peers": {},
        "ratio": round(BAR_SECONDS / seconds, 3) if exit_code == 0 else None,
        "conditions": {
            "data": chosen.data.name, "trials": chosen.trials, "cores": os.cpu_count(),
            "machine": platform.machine(), "peak_job_mb": round(memory.peak / 1e6),
            "ratio": "bar (360 s) over figure: 1 or more meets it",
        },
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
