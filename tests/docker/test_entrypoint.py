"""The entrypoint, the health check and the settings writer of the images, run against prepared environments."""

from __future__ import annotations

import base64
import http.server
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from tests.docker import compose

entrypoint = compose.script("airflow/entrypoint.py")
new_env = compose.script("new_env.py")
healthcheck = compose.script("airflow/healthcheck.py")

SERVICES = compose.raw()["services"]
LOCAL = {
    "COMPOSE_PROFILES": "local-aws",
    "POSTGRES_PASSWORD": "a/b@c:d%",
    "REDIS_PASSWORD": "r@",
    "LOCAL_AWS_ACCESS_KEY_ID": "AKIALOCAL",
    "LOCAL_AWS_SECRET_ACCESS_KEY": "s3cret",
    "LOCAL_AWS_URL": SERVICES["airflow-scheduler"]["environment"]["LOCAL_AWS_URL"],
}
REAL = {
    "LOCAL_AWS_URL": LOCAL["LOCAL_AWS_URL"],
    "POSTGRES_PASSWORD": "x",
    "ML_PIPELINE_BUCKET": "photos",
    "ML_PIPELINE_ROLE_ARN": "arn:aws:iam::111122223333:role/ml-pipeline-job",
    "AWS_DEFAULT_REGION": "eu-west-1",
}


def test_any_password_reaches_the_database_whole() -> None:
    url = make_url(entrypoint.derived(LOCAL)["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
    assert (url.password, url.host, url.port, url.database) == ("a/b@c:d%", "postgres", 5432, "airflow")


def test_a_server_that_is_gone_without_a_word_is_noticed() -> None:
    made = entrypoint.derived(LOCAL)
    assert make_url(made["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]).query["keepalives_idle"] == "10"
    other = make_url(made["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC"])
    assert (other.password, other.query) == ("a/b@c:d%", {})


def test_profile_local_aws_sends_everything_there() -> None:
    made = entrypoint.derived(LOCAL)
    connection = json.loads(made["AIRFLOW_CONN_AWS_DEFAULT"])
    assert made["LOCAL_AWS_URL"] == made["AWS_ENDPOINT_URL"] == "http://local-aws:4566"
    assert connection["extra"]["endpoint_url"] == "http://local-aws:4566"
    assert (connection["login"], connection["password"]) == ("AKIALOCAL", "s3cret")
    assert (made["AWS_ACCESS_KEY_ID"], made["AWS_SECRET_ACCESS_KEY"]) == ("AKIALOCAL", "s3cret")
    assert "local-aws" in SERVICES


def test_botocore_accepts_the_host_name() -> None:
    from botocore.utils import is_valid_endpoint_url

    assert is_valid_endpoint_url(entrypoint.derived(LOCAL)["LOCAL_AWS_URL"])


def test_without_it_the_real_aws_is_used() -> None:
    made = entrypoint.derived(REAL)
    connection = json.loads(made["AIRFLOW_CONN_AWS_DEFAULT"])
    assert connection["extra"]["region_name"] == "eu-west-1"
    assert "endpoint_url" not in connection["extra"]
    assert made["LOCAL_AWS_URL"] == ""
    assert "AWS_ENDPOINT_URL" not in made
    assert "AWS_ACCESS_KEY_ID" not in made


def test_profile_celery_brings_executor_and_broker() -> None:
    made = entrypoint.derived({**LOCAL, "COMPOSE_PROFILES": "local-aws, celery"})
    assert made["AIRFLOW__CORE__EXECUTOR"] == "CeleryExecutor"
    assert made["AIRFLOW__CELERY__BROKER_URL"] == "redis://:r%40@redis:6379/0"
    assert entrypoint.derived(LOCAL)["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({**LOCAL, "POSTGRES_PASSWORD": ""}, "POSTGRES_PASSWORD is not set"),
        ({**REAL, "ML_PIPELINE_BUCKET": ""}, "set ML_PIPELINE_BUCKET"),
        ({**REAL, "AWS_DEFAULT_REGION": ""}, "set AWS_DEFAULT_REGION"),
    ],
)
def test_missing_settings_end_the_container_with_one_line(environ: dict[str, str], reason: str) -> None:
    script = compose.ROOT / "docker/airflow/entrypoint.py"
    done = subprocess.run(
        [sys.executable, str(script), "true"], env={"PATH": os.environ["PATH"], **environ},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_worker_without_its_executor_is_refused() -> None:
    with pytest.raises(entrypoint.EntrypointError, match="COMPOSE_PROFILES does not name celery"):
        entrypoint.check_command(["airflow", "celery", "worker"], LOCAL)
    entrypoint.check_command(["airflow", "celery", "worker"], {"COMPOSE_PROFILES": "celery"})


def test_the_command_takes_over_with_the_derived_environment() -> None:
    script = compose.ROOT / "docker/airflow/entrypoint.py"
    done = subprocess.run(
        [sys.executable, str(script), "sh", "-c", "echo $LOCAL_AWS_URL"],
        env={"PATH": os.environ["PATH"], **LOCAL}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "http://local-aws:4566\n"


def test_new_env_writes_working_secrets_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / ".env"
    assert new_env.main(target) == 0
    written = compose.read_env(target.read_text())
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert all(len(written[name]) >= 16 for name in new_env.SECRETS)
    assert len({written[name] for name in new_env.SECRETS}) == len(new_env.SECRETS)
    assert len(base64.urlsafe_b64decode(written["AIRFLOW_FERNET_KEY"])) == 32
    assert compose.load(written)
    assert new_env.main(target) == 1
    assert compose.read_env(target.read_text()) == written
    assert written["POSTGRES_PASSWORD"] not in capsys.readouterr().out


@pytest.fixture
def airflow_health() -> Iterator[str]:
    states = {"triggerer": "unhealthy", "dag_processor": "healthy"}
    body = json.dumps({**{name: {"status": state} for name, state in states.items()}, "scheduler": None})

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 503)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_health_check_tells_well_from_unwell(airflow_health: str) -> None:
    url = f"{airflow_health}/health"
    assert healthcheck.problem(url, None) is None
    assert healthcheck.problem(url, "dag_processor") is None
    assert healthcheck.problem(url, "triggerer") == "triggerer is unhealthy"
    assert healthcheck.problem(url, "scheduler") == "scheduler is missing"
    assert "503" in (healthcheck.problem(f"{airflow_health}/down", None) or "")
    assert "refused" in (healthcheck.problem("http://127.0.0.1:1/", None) or "")
