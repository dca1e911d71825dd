"""Airflow's components and local_aws for a benchmark: those of `make run`, on DAG files of the benchmark's own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from launcher.airflow_api import AirflowClient
from launcher.run import connect, wait_until_ready, write_login
from launcher.services import services
from launcher.settings import Secrets, Settings, airflow_environment
from launcher.supervisor import Supervisor
from local_aws.iam.credentials import root_key

PARSE_SECONDS = 120.0


@dataclass(frozen=True)
class Running:
    """The running services: addresses, a client, and the supervisor that owns the processes."""

    settings: Settings
    airflow: AirflowClient
    supervisor: Supervisor

    def pid(self, service: str) -> int:
        """The process id of a service of `launcher.services`."""
        return self.supervisor.children[service].pid

    def wait_for_dag(self, dag_id: str) -> None:
        """Wait until the DAG processor has stored the DAG. Exit with the reason when its file cannot be imported."""

        def parsed() -> bool:
            if errors := self.airflow.import_errors():
                sys.exit(errors[0])
            return self.airflow.dag_exists(dag_id)

        wait_until(parsed, PARSE_SECONDS, dag_id)

    def aws(self, service: str) -> Any:
        """A boto3 client of local_aws."""
        import boto3

        key = root_key(self.settings.local_aws_state)
        return boto3.client(
            service, endpoint_url=self.settings.local_aws_url, region_name="us-east-1",
            aws_access_key_id=key.id, aws_secret_access_key=key.secret,
        )  # fmt: skip


@contextmanager
def running(settings: Settings, dags: Path, **environ: str) -> Iterator[Running]:
    """Start everything with `environ` over the laptop's configuration; stop it at the end."""
    settings.home.mkdir(parents=True, exist_ok=True)
    credentials = Secrets.load_or_create(settings.home)
    environment = {
        **os.environ,
        **airflow_environment(settings, credentials),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        # New DAG files are looked for every five minutes by default.
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "2",
        **environ,
    }
    write_login(settings, credentials)
    airflow = Path(sys.executable).with_name("airflow")
    subprocess.run([airflow, "db", "migrate"], env=environment, check=True, capture_output=True)
    ports = {"airflow": settings.airflow_port, "local_aws": settings.local_aws_port}
    supervisor = Supervisor(services(settings), environment, settings.home, ports)
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    try:
        wait_until_ready(settings, Console(stderr=True))
        yield Running(settings, connect(settings), supervisor)
    finally:
        supervisor.stopping.set()
        thread.join()


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Return the first true answer of `condition`; exit with one line when there is none within `seconds`."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() > deadline:
            sys.exit(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.25)
    return answer
