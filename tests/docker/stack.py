"""Runs the services of docker-compose.yaml as processes of this machine, on a real PostgreSQL.

What Docker does with names and ports is done by replacing text: each service's host name becomes 127.0.0.1,
each of its ports a free one, each volume a folder of the test. Commands, environment, start order and health
checks are those of the file.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from launcher.airflow_api import AirflowClient
from launcher.preflight import free_port
from launcher.run import DAG_ID
from model_code.data import sample_data
from tests.docker import compose

# What each service listens on in its container; tests/docker/test_compose_file.py holds the file to it.
PORTS = {
    "airflow-apiserver": 8080,
    "airflow-scheduler": 8974,
    "local-aws": 4566,
    "postgres": 5432,
    "redis": 6379,
}
VOLUMES = {"/opt/airflow/logs": "airflow/logs", "/var/lib/local_aws": "local_aws"}
READY_SECONDS = 180.0
STOP_SECONDS = 40.0
PARSE_SECONDS = 90.0
RUN_SECONDS = 600.0


def postgres_programs() -> Path | None:
    """The folder with initdb and postgres, where Debian's packages put it; None without a server."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@contextmanager
def postgres(programs: Path, password: str) -> Iterator[int]:
    """A PostgreSQL of its own with the user and database `airflow`; yields its port.

    The server refuses to run as root: then it runs as the user `postgres` that Debian's package made. Its folder is
    none of pytest's, which every new pytest closes to other users.
    """
    user = "postgres" if os.getuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="postgres-") as made:
        folder = Path(made)
        secret = folder / "password"
        secret.write_text(password)
        if user:
            for path in (folder, secret):
                shutil.chown(path, user)
        with _server(programs, folder, secret, user) as port:
            subprocess.run(
                [programs / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "airflow", "airflow"],
                env={**os.environ, "PGPASSWORD": password}, check=True, capture_output=True,
            )  # fmt: skip
            yield port


@contextmanager
def _server(programs: Path, folder: Path, secret: Path, user: str | None) -> Iterator[int]:
    data, port = folder / "data", free_port()
    initdb: list[str | Path] = [
        programs / "initdb",
        "--pgdata",
        data,
        "--username",
        "airflow",
        "--pwfile",
        secret,
    ]
    subprocess.run(
        [*initdb, "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-sync"],
        user=user, cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    log = (folder / "server.log").open("wb")
    server = subprocess.Popen(
        [programs / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", folder],
        user=user, cwd=folder, stdout=log, stderr=log,
    )  # fmt: skip
    try:
        asking: list[str | Path] = [programs / "pg_isready", "-h", "127.0.0.1", "-p", str(port)]
        wait_until(lambda: subprocess.run(asking, capture_output=True).returncode == 0, 30, "PostgreSQL")
        yield port
    finally:
        server.send_signal(signal.SIGINT)  # the server's fast shutdown
        server.wait(30)
        log.close()


def wait_until(condition: Any, seconds: float, what: str, pause: float = 0.1) -> None:
    """Ask until `condition()` is true, every `pause` seconds. Raises AssertionError naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(pause)


@dataclass
class Stack:
    """The processes of the services, by name.

    environ: the .env of this stack. ports: service -> port here.
    """

    folder: Path
    environ: Mapping[str, str]
    ports: dict[str, int]
    document: dict[str, Any] = field(init=False)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.document = compose.load(self.environ)
        for folder in VOLUMES.values():
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        (self.folder / "airflow/airflow.cfg").touch()

    @property
    def services(self) -> dict[str, Any]:
        return self.document["services"]

    def url(self, service: str) -> str:
        return f"http://127.0.0.1:{self.ports[service]}"

    def run(self, service: str) -> None:
        """Run a one-shot service to its end. Raises AssertionError with its output when it fails."""
        done = subprocess.run(
            self._command(service), env=self._env(service), cwd=compose.ROOT, capture_output=True, text=True,
            timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, f"{service}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"

    def start(self, *services: str) -> None:
        """Start services and wait until their health checks pass."""
        for service in services:
            with self.log(service).open("ab") as log:
                self.processes[service] = subprocess.Popen(
                    self._command(service), env=self._env(service), cwd=compose.ROOT,
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
        for service in services:
            wait_until(
                lambda name=service: self.healthy(name), READY_SECONDS, f"{service} ({self.log(service)})"
            )

    def log(self, service: str) -> Path:
        return self.folder / f"{service}.log"

    def healthy(self, service: str) -> bool:
        """Run the service's health check. Raises AssertionError when the service has ended."""
        process = self.processes[service]
        ended = f"{service} ended: {self.log(service).read_text()[-3000:]}"
        assert process.poll() is None, ended
        kind, *words = self.services[service]["healthcheck"]["test"]
        if kind == "CMD-SHELL":
            # The programs of the virtual environment are on the PATH, as they are in the image.
            script = words[0].replace("python ", f"{sys.executable} ")
            words = ["sh", "-c", script.replace("redis-cli", f"redis-cli -p {self.ports['redis']}")]
        argv = [self.here(word) for word in words]
        done = subprocess.run(
            self._python(argv), env=self._env(service), cwd=compose.ROOT, capture_output=True
        )
        return done.returncode == 0

    def stop(self) -> None:
        """End every service, the last started first, and whatever it left behind."""
        for process in reversed(self.processes.values()):
            if process.poll() is None:
                process.terminate()
        for process in self.processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def leftovers(self) -> list[str]:
        """Processes that still belong to this stack."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.environ().get("AIRFLOW_HOME") == str(self.folder / "airflow"):
                    found.append(" ".join(process.cmdline()))
        return found

    def here(self, text: str) -> str:
        """`text` with the stack's names, ports and volumes replaced by this machine's."""
        for path, folder in VOLUMES.items():
            text = text.replace(path, str(self.folder / folder))
        for service, port in PORTS.items():
            text = re.sub(rf"\b{service}:{port}\b", f"127.0.0.1:{self.ports[service]}", text)
            text = text.replace(f"127.0.0.1:{port}/", f"127.0.0.1:{self.ports[service]}/")
        return text

    def _command(self, service: str) -> list[str]:
        argv = [self._argument(service, word) for word in self.services[service]["command"]]
        # The images of others have entry points of their own, which change nothing about these commands.
        if "build" in self.services[service] and "entrypoint" not in self.services[service]:
            argv = ["python", "docker/airflow/entrypoint.py", *argv]
        return self._python(argv)

    def _argument(self, service: str, word: str) -> str:
        if word == "0.0.0.0":  # a test listens on loopback only
            return "127.0.0.1"
        if service == "redis":
            here = f"--bind 127.0.0.1 --port {self.ports[service]} --dir {self.folder}"
            return word.replace("redis-server", f"redis-server {here}")
        return str(self.ports[service]) if word == str(PORTS.get(service)) else self.here(word)

    def _python(self, argv: list[str]) -> list[str]:
        return [sys.executable, *argv[1:]] if argv[0] == "python" else argv

    def _env(self, service: str) -> dict[str, str]:
        written = {
            name: self.here(value) for name, value in self.services[service].get("environment", {}).items()
        }
        names = {
            "POSTGRES_HOST": "127.0.0.1",
            "POSTGRES_PORT": str(self.ports["postgres"]),
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(self.ports["redis"]),
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT": str(self.ports["airflow-scheduler"]),
        }
        if service == "local-aws":  # the other containers reach it by this name
            names["LOCAL_AWS_PUBLIC_URL"] = f"http://local-aws:{self.ports[service]}"
        return {
            **image_environment(self.folder / "airflow"),
            **written,
            **{name: value for name, value in names.items() if name in written},
        }


def run_to_success(client: AirflowClient, photos: Path) -> list[dict[str, Any]]:
    """A run of the main DAG on photos drawn into a folder; its task instances.

    Raises AssertionError with the end of the log of the task that failed.
    """
    sample_data.draw(photos, photos=60, classes=4)
    return end_well(client, start_run(client, str(photos)))


def start_run(client: AirflowClient, data: str) -> str:
    """Start the main DAG, once it is parsed, on the photos of `data` as tasks see it; the id of the run."""
    wait_until(lambda: client.dag_exists(DAG_ID), PARSE_SECONDS, DAG_ID)
    return client.trigger(
        DAG_ID,
        {
            "data": data, "dataset_name": "drawn", "weights": "none", "trials": 2,
            "architecture": "squeezenet1_1", "min_accuracy": 0.0,
        },
    )  # fmt: skip


def end_well(client: AirflowClient, run_id: str) -> list[dict[str, Any]]:
    """Wait for a run's success; its task instances.

    Raises AssertionError with the end of the log of the task that failed.
    """
    wait_until(
        lambda: client.run_state(DAG_ID, run_id) in ("success", "failed"), RUN_SECONDS, "the run", pause=1
    )
    tasks = client.task_instances(DAG_ID, run_id)
    for task in tasks:
        assert task["state"] != "failed", "\n".join(
            [task["task_id"], *client.log(DAG_ID, run_id, task)[-30:]]
        )
    assert client.run_state(DAG_ID, run_id) == "success"
    return tasks


def image_environment(airflow_home: Path) -> dict[str, str]:
    """Return the variables of docker/airflow/Dockerfile; the test's own environment stays out."""
    programs = Path(sys.executable).parent
    return {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(airflow_home),
        "LANG": "C.UTF-8",
        "AIRFLOW_HOME": str(airflow_home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(compose.ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(compose.ROOT / "plugins"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }
