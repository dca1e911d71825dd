"""Every service of docker-compose.yaml as a process here, on a real PostgreSQL, and the DAG green on them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from launcher.airflow_api import AirflowClient
from launcher.preflight import free_port
from launcher.run import DAG_ID
from tests.airflow_client import PatientClient
from tests.docker.stack import PORTS, Stack, postgres_programs, run_to_success, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.e2e,
    pytest.mark.skipif(postgres_programs() is None, reason="needs apt-get install postgresql"),
]

HEARTBEAT_SECONDS = 60


@pytest.fixture(scope="module")
def stack(
    environ: dict[str, str], database: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    ports = {service: free_port() for service in PORTS} | {"postgres": database}
    made = Stack(tmp_path_factory.mktemp("stack"), environ, ports)
    try:
        made.run("airflow-init")
        made.start("local-aws", "airflow-apiserver")
        made.start("airflow-scheduler", "airflow-dag-processor", "airflow-triggerer")
        yield made
    finally:
        made.stop()
        assert made.leftovers() == []


@pytest.fixture(scope="module")
def client(stack: Stack, environ: dict[str, str]) -> AirflowClient:
    return PatientClient(stack.url("airflow-apiserver"), "admin", environ["AIRFLOW_ADMIN_PASSWORD"])


def test_everything_is_healthy_on_postgresql(
    stack: Stack, client: AirflowClient, environ: dict[str, str], database: int
) -> None:
    parts = ("metadatabase", "scheduler", "triggerer", "dag_processor")
    wait_until(lambda: all(client.health().get(p) == "healthy" for p in parts), HEARTBEAT_SECONDS, "health")
    url = f"postgresql://airflow:{environ['POSTGRES_PASSWORD']}@127.0.0.1:{database}/airflow"
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("select distinct job_type from job where state = 'running' order by 1")
        assert [row[0] for row in cursor] == ["DagProcessorJob", "SchedulerJob", "TriggererJob"]


def test_init_can_run_again(stack: Stack, client: AirflowClient) -> None:
    stack.run("airflow-init")
    assert client.call("GET", "dags") is not None


def test_dags_are_parsed_without_errors(client: AirflowClient) -> None:
    wait_until(lambda: client.dag_exists(DAG_ID) or client.import_errors(), HEARTBEAT_SECONDS, DAG_ID)
    assert client.import_errors() == []


def test_local_aws_answers_under_its_name_in_the_network(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    # botocore refuses some host names, and S3 reads a bucket out of others.
    import boto3

    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest: resolve({"local-aws": "127.0.0.1"}.get(host, host), *rest)
    )
    s3 = boto3.client(
        "s3",
        endpoint_url=f"http://local-aws:{stack.ports['local-aws']}",
        region_name="us-east-1",
        aws_access_key_id=stack.environ["LOCAL_AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=stack.environ["LOCAL_AWS_SECRET_ACCESS_KEY"],
    )
    s3.create_bucket(Bucket="named")
    s3.put_object(Bucket="named", Key="folder/key", Body=b"bytes")
    assert s3.get_object(Bucket="named", Key="folder/key")["Body"].read() == b"bytes"


def test_dag_is_green(client: AirflowClient, tmp_path: Path) -> None:
    run_to_success(client, tmp_path / "photos")


def test_only_logs_are_written_outside_the_database(stack: Stack) -> None:
    # The containers' file systems are read-only but for the logs.
    home = stack.folder / "airflow"
    written = {path.relative_to(home).parts[0] for path in home.rglob("*") if path.is_file()}
    assert written <= {"airflow.cfg", "logs"}
