"""`waiting`: the cost of runs that only wait, on PostgreSQL: 1,000 at once hold no worker slot.

Each run has one paid job, started by the project's own operator and waited for by its own trigger. One more job
holds every core of local_aws, so that the 100 stay pending until all of them wait; then it is stopped, and all
must succeed. Meanwhile slots and worker processes are counted, CPU and memory of the triggerer are measured, and
calls to local_aws are counted on the wire. The peer is the Amazon provider's operator, not deferrable, in the same
Airflow. They look at their jobs every 30 s, as on AWS. The last line is JSON; figure is the megabytes of the
triggerer, ratio the number of worker slots that the waiting runs hold.

    python -m benchmarks.waiting [--runs 1000] [--seconds 60]
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks._airflow import Running, running, wait_until
from benchmarks._counting_proxy import CountingProxy
from launcher.preflight import free_port
from launcher.settings import Secrets, Settings
from local_aws.iam.credentials import root_key
from ml_pipeline.settings import airflow_connection
from tests.docker.stack import postgres, postgres_programs

DAG_ID, PEER_ID = "waiting", "stock_waiting"
PEER_RUNS = 4
START_SECONDS = END_SECONDS = 3600.0
POLL_SECONDS = 30
MOST_MEGABYTES = 1500


@dataclass(frozen=True)
class Waiting:
    """Observations while `runs` runs waited.

    slots: worker slots held, the maximum of all samples; cpu: cores in use; megabytes: of the triggerer's
    processes; calls: answered by local_aws per second.
    """

    runs: int
    slots: int
    busy_workers: int
    cpu: float
    megabytes: float
    calls: float


def main() -> None:
    """Measure, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="how long they are watched while they wait"
    )
    chosen = parser.parse_args()
    programs = postgres_programs()
    if programs is None:
        sys.exit("PostgreSQL is needed: apt-get install postgresql")
    with tempfile.TemporaryDirectory(prefix="waiting-", dir="/tmp") as folder:
        password = secrets.token_hex(16)
        with postgres(programs, password) as port:
            database = f"postgresql+psycopg2://airflow:{password}@127.0.0.1:{port}/airflow"
            seen, peer, peer_megabytes, succeeded = measure(Path(folder), database, chosen)
    print(f"\n{'runs that wait at once':<44}{seen.runs:8d}")
    print(f"{'worker slots they hold':<44}{seen.slots:8d}")
    print(f"{'worker processes at work':<44}{seen.busy_workers:8d}")
    print(f"{'triggerer, CPU':<44}{seen.cpu:8.1%} of one core")
    print(f"{'triggerer, memory':<44}{seen.megabytes:8.0f} MB")
    print(f"{'calls to local_aws':<44}{seen.calls:8.1f} per second")
    print(f"{'runs that then succeeded':<44}{succeeded:8d}")
    print(
        f"{f'peer: slots held by {PEER_RUNS} runs that do not defer':<44}{peer:8d}, {peer_megabytes:.0f} MB each"
    )
    result = {
        "name": "waiting",
        "figure": round(seen.megabytes),
        "unit": f"MB of the triggerer, {seen.runs} waiting runs",
        "limit": MOST_MEGABYTES,
        "peers": {"SageMakerProcessingOperator, not deferrable": round(peer_megabytes * seen.runs)},
        "ratio": seen.slots,
        "conditions": {
            "succeeded": succeeded, "peer_slots": peer * seen.runs // PEER_RUNS, "poll_s": POLL_SECONDS,
            "busy_workers": seen.busy_workers, "triggerer_cpu": round(seen.cpu, 3),
            "calls_per_s": round(seen.calls, 1), "database": "PostgreSQL", "cores": os.cpu_count(),
        },
    }  # fmt: skip
    print(json.dumps(result))


def measure(folder: Path, database: str, chosen: argparse.Namespace) -> tuple[Waiting, int, float, int]:
    """Return what the waiting runs held, slots and megabytes per run of the peer, and the runs that succeeded."""
    dags = folder / "dags"
    dags.mkdir()
    shutil.copy(Path(__file__).with_name("_waiting_dag.py"), dags / "waiting_dag.py")
    settings = Settings(folder / "home", free_port(), free_port())
    Secrets.load_or_create(settings.home)  # marks the folder as one of the launcher's
    key = root_key(settings.local_aws_state)
    with CountingProxy(settings.local_aws_port) as proxy:
        environ = {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
            "LOCAL_AWS_URL": proxy.url,
            "ML_PIPELINE_POLL_SECONDS": str(POLL_SECONDS),
            "AIRFLOW_CONN_AWS_DEFAULT": airflow_connection(proxy.url, key=key.id, secret=key.secret),
        }
        with running(settings, dags, **environ) as services:
            services.wait_for_dag(DAG_ID)
            services.wait_for_dag(PEER_ID)
            blocker = block(services)
            for _ in range(chosen.runs):
                services.airflow.trigger(DAG_ID, {})
            wait_until(lambda: all_wait(services, chosen.runs), START_SECONDS, "all waiting")
            wait_until(lambda: slots(services) + busy_workers(services) == 0, 60, "free slots")
            seen = watch(services, proxy, chosen)
            peer, megabytes = watch_peer(services)
            services.aws("sagemaker").stop_processing_job(ProcessingJobName=blocker)
            wait_until(lambda: ended(services, DAG_ID) == chosen.runs, END_SECONDS, "all ended")
            return seen, peer, megabytes, count(services, DAG_ID, "success")


def block(services: Running) -> str:
    """A job that holds every core until it is stopped; its name."""
    sagemaker = services.aws("sagemaker")
    sagemaker.create_processing_job(
        ProcessingJobName="blocker",
        RoleArn="arn:aws:iam::123456789012:role/ml-pipeline-job",
        AppSpecification={
            "ImageUri": "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch:any",
            "ContainerEntrypoint": ["sleep", "infinity"],
        },
        ProcessingResources={
            "ClusterConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 1}
        },
    )
    return "blocker"


def watch(services: Running, proxy: CountingProxy, chosen: argparse.Namespace) -> Waiting:
    """Sample repeatedly for `chosen.seconds`."""
    triggerer = processes(services.pid("triggerer"))
    began, cpu, calls = time.monotonic(), cpu_seconds(triggerer), proxy.requests
    most_slots = most_workers = 0
    while time.monotonic() - began < chosen.seconds:
        most_slots = max(most_slots, slots(services))
        most_workers = max(most_workers, busy_workers(services))
        time.sleep(1)
    spent = time.monotonic() - began
    waiting = count(services, DAG_ID, "deferred")
    return Waiting(
        runs=waiting,
        slots=most_slots,
        busy_workers=most_workers,
        cpu=(cpu_seconds(triggerer) - cpu) / spent,
        megabytes=sum(process.memory_full_info().uss for process in triggerer) / 1e6,
        calls=(proxy.requests - calls) / spent,
    )


def watch_peer(services: Running) -> tuple[int, float]:
    """Slots that PEER_RUNS runs of the stock operator hold while they wait, and megabytes of each."""
    for _ in range(PEER_RUNS):
        services.airflow.trigger(PEER_ID, {})
    sagemaker = services.aws("sagemaker")

    def waiting() -> bool:
        found = sagemaker.list_processing_jobs(NameContains="stock", StatusEquals="InProgress")
        return len(found["ProcessingJobSummaries"]) == PEER_RUNS

    wait_until(waiting, START_SECONDS, "the peer's jobs")
    tasks = [task for worker in workers(services) for task in worker.children()]
    memory = sum(process.memory_full_info().uss for process in tasks) / 1e6
    return slots(services), memory / PEER_RUNS


def slots(services: Running) -> int:
    """Worker slots that are taken, as Airflow counts them."""
    return int(services.airflow.call("GET", "pools/default_pool")["occupied_slots"])


def workers(services: Running) -> list[psutil.Process]:
    """LocalExecutor's worker processes, children of the scheduler."""
    children = psutil.Process(services.pid("scheduler")).children()
    return [process for process in children if "LocalExecutor" in " ".join(process.cmdline())]


def busy_workers(services: Running) -> int:
    """Worker processes that have a task."""
    tasks = (task for worker in workers(services) for task in worker.children())
    return sum(task.status() != psutil.STATUS_ZOMBIE for task in tasks)


def count(services: Running, dag_id: str, state: str) -> int:
    """Task instances of a DAG in a state, over all runs."""
    path = f"dags/{dag_id}/dagRuns/~/taskInstances"
    answer = services.airflow.call("GET", path, params={"state": state, "limit": 1})
    return int(answer["total_entries"])


def all_wait(services: Running, runs: int) -> bool:
    """Tell whether all runs wait. Raises SystemExit where one is over: none can be."""
    if ended(services, DAG_ID):
        sys.exit("a run has ended before its job: see airflow/logs/dag_id=waiting")
    return count(services, DAG_ID, "deferred") == runs


def ended(services: Running, dag_id: str) -> int:
    """Runs of a DAG that are over."""
    answer = services.airflow.call(
        "GET", f"dags/{dag_id}/dagRuns", params={"state": ["success", "failed"], "limit": 1}
    )
    return int(answer["total_entries"])


def processes(pid: int) -> list[psutil.Process]:
    """A process and all its descendants."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def cpu_seconds(found: list[psutil.Process]) -> float:
    return sum(process.cpu_times().user + process.cpu_times().system for process in found)


if __name__ == "__main__":
    main()
