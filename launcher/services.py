"""The services of a laptop run: the command of each, and its readiness check."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

from launcher.settings import REPOSITORY, Settings

# Code that services import once and keep; Airflow itself watches the DAG files for changes.
LOADED_ONCE = ("launcher", "local_aws", "model_code", "plugins", "requirements.lock")


@dataclass(frozen=True)
class Service:
    """One child of the supervisor.

    name: also the name of its log file.
    argv: the command.
    health: URL that answers 200 once the service is ready; None: ready once started.
    """

    name: str
    argv: tuple[str, ...]
    health: str | None = None


def services(settings: Settings) -> tuple[Service, ...]:
    """Return the services in starting order; they are stopped in reverse, local_aws last."""
    airflow = str(Path(sys.executable).with_name("airflow"))
    return (
        Service(
            "local_aws",
            (
                sys.executable, "-m", "local_aws", "start", "--foreground",
                "--state", str(settings.local_aws_state),
                "--images", str(REPOSITORY / "plugins" / "ml_pipeline" / "aws" / "images.toml"),
                "--port", str(settings.local_aws_port),
                "--auth", "required",
            ),
            health=f"{settings.local_aws_url}/_local_aws/health",
        ),
        Service(
            "api-server",
            (airflow, "api-server", "--host", "127.0.0.1", "--port", str(settings.airflow_port)),
            # The API that tasks use makes its routes at its first request, which takes seconds: not the first task's.
            health=f"{settings.airflow_url}/execution/health",
        ),
        # Both would serve log files on every address of the machine; the api-server reads them from disk.
        # It forks the tasks: what it has loaded, they need not load.
        Service("scheduler", ("env", "ML_PIPELINE_PRELOAD=1", airflow, "scheduler", "--skip-serve-logs")),
        Service("triggerer", (airflow, "triggerer", "--skip-serve-logs")),
        Service("dag-processor", (airflow, "dag-processor")),
    )  # fmt: skip


def code_version() -> str:
    """Digest of the files whose change requires a restart of the services."""
    digest = hashlib.sha256()
    for name in LOADED_ONCE:
        top = REPOSITORY / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.suffix in (".py", ".toml", ".json", ".lock"):
                digest.update(str(path.relative_to(REPOSITORY)).encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()


def is_ready(service: Service, timeout: float = 2.0) -> bool:
    """Request the service's health URL once."""
    if service.health is None:
        return True
    import requests

    try:
        return requests.get(service.health, timeout=timeout).status_code == 200
    except requests.RequestException:
        return False
