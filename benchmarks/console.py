"""`console`: seconds to answer all that a page of the console asks for, over all pages, warm, S3 calls included.

The past has 100 model versions, 1,000 runs, 100,000 photos and 10,000 classes (`--small` is for a try). Pages are
asked for over HTTP from a real api-server, whose S3 and SageMaker are a local_aws on loopback; each page is visited
in turn, with pauses longer than the console remembers lists. Further it measures by how much the console lengthens the
start of the api-server (with and without it, alternating) and how much memory all pages add. The last line is JSON;
figure is the 95th percentile, ratio is limit / figure. The peer is Airflow's own list of runs.

    python -m benchmarks.console [--rounds 20]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import psutil
import requests

from benchmarks import _console_data as large
from launcher.preflight import free_port
from launcher.run import write_login
from launcher.services import is_ready, services
from launcher.settings import Secrets, Settings, airflow_environment
from local_aws.iam.credentials import root_key

LIMIT_SECONDS = 0.3
START_SECONDS = 300.0
# The console remembers lists for 5 s: every round begins with none.
PAUSE_SECONDS = 5.2
BUCKET = "ml-pipeline"
# The api-server as it is, and without the console's application and view.
_SERVER = """
import sys
from ml_pipeline.plugin import MlPipelinePlugin
if sys.argv.pop(1) == "without":
    MlPipelinePlugin.fastapi_apps = MlPipelinePlugin.external_views = []
from airflow.__main__ import main
sys.exit(main())
"""


def pages(size: large.Size) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """Return the requests of each page, in its order."""
    name, version, newest = large.NAME, size.version(size.versions), size.versions
    photos = {"name": name, "version": version}
    run = {"run_id": large.run_id(size.runs)}
    return {
        "Models": [("models", {}), ("models/versions", {"group": name})],
        "compare": [("models/compare", {"group": name, "left": newest - 1, "right": newest})],
        "classes": [("models/classes", {"group": name, "version": newest})],
        "Runs": [("runs", {})],
        "old runs": [("runs", {"offset": size.runs - 50})],
        "one run": [("runs/one", run)],
        "Data": [("data", {}), ("data/versions", {"name": name})],
        "photos": [("data/version", photos), ("data/photos", photos)],
        "mistakes": [
            ("data/version", photos),
            ("data/photos", {**photos, "mistakes": True, "model": newest}),
        ],
        "suspects": [("data/photos", {**photos, "finding": "suspect", "offset": 600})],
        "Review": [("data", {}), ("review", {"name": name})],
        "Endpoints": [("endpoints", {})],
    }


def main() -> None:
    """Measure, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20, help="visits of each page")
    parser.add_argument("--starts", type=int, default=3, help="starts of the api-server with and without it")
    parser.add_argument("--small", action="store_true", help="a hundredth of everything")
    given = parser.parse_args()
    size = large.Size(5, 50, 1000, 50, 200) if given.small else large.Size()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(Path(folder), airflow_port=free_port(), local_aws_port=free_port())
        environment = prepare(settings)
        with process(settings, "local_aws", environment):
            key = root_key(settings.local_aws_state)
            client = {
                "endpoint_url": settings.local_aws_url, "region_name": "us-east-1",
                "aws_access_key_id": key.id, "aws_secret_access_key": key.secret,
            }  # fmt: skip
            s3 = boto3.client("s3", **client)
            s3.create_bucket(Bucket=BUCKET)
            large.fill_s3(s3, BUCKET, size)
            large.register(boto3.client("sagemaker", **client), BUCKET, size)
            command = "import json, sys; from benchmarks import _console_data as large; " \
                      f"large.fill_airflow(large.{size!r})"  # fmt: skip
            subprocess.run([sys.executable, "-c", command], env=environment, check=True)
            starts: dict[str, list[float]] = {"with": [], "without": []}
            for _ in range(given.starts):
                for which in ("without", "with"):
                    with server(settings, environment, which) as started:
                        starts[which].append(started.seconds)
            with server(settings, environment, "with") as started:
                result = measure(settings, size, started.process, given.rounds)
    with_, without = (statistics.median(starts[which]) for which in ("with", "without"))
    print(f"start of the api-server: {with_:.2f} s with the console, {without:.2f} s without")
    result["conditions"] += f"; start {100 * (with_ / without - 1):+.0f} %"
    print(json.dumps(result))


def prepare(settings: Settings) -> dict[str, str]:
    """An empty Airflow database; returns the environment of all processes."""
    credentials = Secrets.load_or_create(settings.home)
    environment = {**os.environ, **airflow_environment(settings, credentials)}
    write_login(settings, credentials)
    airflow = Path(sys.executable).with_name("airflow")
    subprocess.run([airflow, "db", "migrate"], env=environment, check=True, capture_output=True)
    return environment


class Started:
    """A process and the seconds until it was ready."""

    def __init__(self, running: subprocess.Popen[bytes], seconds: float) -> None:
        self.process, self.seconds = psutil.Process(running.pid), seconds


@contextmanager
def process(
    settings: Settings, name: str, environment: Mapping[str, str], argv: tuple[str, ...] | None = None
) -> Iterator[Started]:
    """Run a service of `make run` until it is no longer needed."""
    service = next(found for found in services(settings) if found.name == name)
    begin = time.perf_counter()
    with open(settings.home / f"{name}.log", "ab") as log:
        running = subprocess.Popen(
            argv or service.argv, env=dict(environment), stdout=log, stderr=log, start_new_session=True
        )
    try:
        while not is_ready(service):
            if running.poll() is not None or time.perf_counter() - begin > START_SECONDS:
                sys.exit(f"{name} did not start: " + (settings.home / f"{name}.log").read_text()[-2000:])
            time.sleep(0.02)
        yield Started(running, time.perf_counter() - begin)
    finally:
        for child in psutil.Process(running.pid).children(recursive=True):
            child.terminate()
        running.terminate()
        running.wait()


@contextmanager
def server(settings: Settings, environment: Mapping[str, str], which: str) -> Iterator[Started]:
    """Run the api-server with the console or without it."""
    argv = ("api-server", "--host", "127.0.0.1", "--port", str(settings.airflow_port))
    with process(
        settings, "api-server", environment, (sys.executable, "-c", _SERVER, which, *argv)
    ) as started:
        yield started


def measure(settings: Settings, size: large.Size, running: psutil.Process, rounds: int) -> dict[str, Any]:
    """Visit every page `rounds` times; returns the result without the start."""
    secrets = Secrets.load(settings.home)
    assert secrets is not None
    session = requests.Session()
    login = {"username": "admin", "password": secrets.admin_password}
    token = session.post(f"{settings.airflow_url}/auth/token", json=login, timeout=60).json()["access_token"]
    session.headers["Authorization"] = f"Bearer {token}"

    def ask(path: str, query: Mapping[str, Any]) -> None:
        answer = session.get(f"{settings.airflow_url}{path}", params=dict(query), timeout=300)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text[:500]}"

    def visit(calls: list[tuple[str, dict[str, Any]]]) -> float:
        begin = time.perf_counter()
        for path, query in calls:
            ask(f"/ml-pipeline/api/{path}", query)
        return time.perf_counter() - begin

    ask("/api/v2/dags", {})
    before = memory(running)
    cold = {name: visit(calls) for name, calls in pages(size).items()}
    seconds: dict[str, list[float]] = {name: [] for name in cold}
    peer = []
    for _ in range(rounds):
        time.sleep(PAUSE_SECONDS)
        for name, calls in pages(size).items():
            seconds[name].append(visit(calls))
        begin = time.perf_counter()
        ask("/api/v2/dags/~/dagRuns", {"limit": 50, "order_by": "-run_after"})
        peer.append(time.perf_counter() - begin)
    grown = memory(running) - before
    for name, taken in seconds.items():
        print(
            f"{name:10} {statistics.median(taken):6.3f} s median, {max(taken):6.3f} s most, {cold[name]:6.2f} s cold"
        )
    print(f"memory: {before:.0f} MB before, {grown:+.0f} MB after all pages")
    figure = statistics.quantiles([one for taken in seconds.values() for one in taken], n=20)[-1]
    return {
        "name": "console",
        "figure": round(figure, 3),
        "unit": "s, p95 over all pages",
        "limit": LIMIT_SECONDS,
        "peers": {"Airflow's list of runs": round(statistics.median(peer), 3)},
        "ratio": round(LIMIT_SECONDS / figure, 3),
        "conditions": f"{size}, {rounds} rounds, {os.cpu_count()} cores, memory {grown:+.0f} MB",
    }


def memory(running: psutil.Process) -> float:
    """MB of memory of a process and its children."""
    found = [running, *running.children(recursive=True)]
    return sum(one.memory_info().rss for one in found) / 1e6


if __name__ == "__main__":
    main()
