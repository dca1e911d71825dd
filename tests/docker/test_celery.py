"""The Celery profile of docker-compose.yaml: Redis, a worker, and the DAG green on them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.preflight import free_port
from tests.airflow_client import PatientClient
from tests.docker.stack import PORTS, Stack, postgres_programs, run_to_success

pytestmark = [
    pytest.mark.slow,
    pytest.mark.e2e,
    pytest.mark.skipif(postgres_programs() is None, reason="needs apt-get install postgresql"),
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs apt-get install redis-server"),
]


@pytest.fixture(scope="module")
def stack(
    environ: dict[str, str], database: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    profiles = {**environ, "COMPOSE_PROFILES": "local-aws,celery"}
    ports = {service: free_port() for service in PORTS} | {"postgres": database}
    made = Stack(tmp_path_factory.mktemp("celery"), profiles, ports)
    try:
        made.run("airflow-init")
        made.start("redis", "local-aws", "airflow-apiserver")
        made.start("airflow-scheduler", "airflow-dag-processor", "airflow-triggerer", "airflow-worker")
        yield made
    finally:
        made.stop()
        assert made.leftovers() == []


def test_dag_is_green_on_a_celery_worker(stack: Stack, environ: dict[str, str], tmp_path: Path) -> None:
    client = PatientClient(stack.url("airflow-apiserver"), "admin", environ["AIRFLOW_ADMIN_PASSWORD"])
    tasks = run_to_success(client, tmp_path / "photos")
    # Celery logs the end of every task that its worker ran; nothing else of this stack could run one.
    done = stack.log("airflow-worker").read_text().count("succeeded in")
    assert done >= sum(task["state"] == "success" for task in tasks)
