"""Settings of a run, read from the environment once, with every path and address that follows from them."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, MutableMapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import ClassVar

EXAMPLE_CONF = '{"strategy": "finetune"}'
REPOSITORY = Path(__file__).resolve().parent.parent
LOOPBACK = ("127.0.0.1", "localhost")


class SettingsError(ValueError):
    """A setting is unusable; the message is one line that names the fix."""


def keep_off_proxy(environ: MutableMapping[str, str]) -> None:
    """Name loopback in NO_PROXY and no_proxy: a proxy cannot reach the services, which are on this machine.

    Where the environment names no proxy nothing changes: on macOS no_proxy alone would hide the system's own.
    """
    if not any(value for name, value in environ.items() if name.lower().endswith("_proxy")):
        return
    # Clients read one of the two names first, some read only one: a name that is missing must not lose hosts.
    for name, other in (("no_proxy", "NO_PROXY"), ("NO_PROXY", "no_proxy")):
        kept = environ.get(name) or environ.get(other) or ""
        hosts = [host.strip() for host in kept.split(",") if host.strip()]
        if hosts != ["*"]:  # every host, and only when it stands alone
            hosts += [host for host in LOOPBACK if host not in hosts]
        environ[name] = ",".join(hosts)


def _integer(environ: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = environ.get(name) or str(default)
    try:
        value = int(text)
    except ValueError:
        raise SettingsError(f"{name}={text} is not a whole number: try {name}={default}") from None
    if not low <= value <= high:
        raise SettingsError(f"{name}={value} is out of range: give a number from {low} to {high}")
    return value


@dataclass(frozen=True)
class Settings:
    """Settings of `make run`.

    home: folder of everything that a run writes (except the virtual environment); `make clean` removes it.
    data: a folder with a folder per class; None fetches or draws a small set.
    weights: a state_dict file, "imagenet", "none", or None (imagenet where it can be reached).
    trials: trials of the hyperparameter search.
    database: SQLAlchemy URL of Airflow's database; None: a SQLite file in the home.
    """

    home: Path
    airflow_port: int = 8080
    local_aws_port: int = 4566
    notebook_port: int = 8888
    data: Path | None = None
    weights: str | None = None
    architecture: str = "mobilenet_v2"
    trials: int = 12
    conf: Mapping[str, object] = field(default_factory=dict)
    database: str | None = None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings of `make run`.

        Raises:
            SettingsError: A value is unusable.
        """
        try:
            conf = json.loads(environ.get("CONF") or "{}")
        except json.JSONDecodeError as error:
            raise SettingsError(f"CONF is not JSON ({error}): try CONF='{EXAMPLE_CONF}'") from None
        if not isinstance(conf, dict):
            raise SettingsError(f"CONF must be a JSON object: try CONF='{EXAMPLE_CONF}'")
        data = environ.get("DATA")
        home = Path(environ.get("ML_PIPELINE_HOME") or REPOSITORY / ".run").resolve()
        return cls(
            home=home,
            airflow_port=_integer(environ, "AIRFLOW_PORT", 8080, 1, 65535),
            local_aws_port=_integer(environ, "LOCAL_AWS_PORT", 4566, 1, 65535),
            notebook_port=_integer(environ, "NOTEBOOK_PORT", 8888, 1, 65535),
            data=Path(data).expanduser().resolve() if data else None,
            weights=_weights(environ.get("WEIGHTS")),
            architecture=environ.get("ARCHITECTURE") or "mobilenet_v2",
            trials=_integer(environ, "TRIALS", 12, 1, 500),
            conf=conf,
            database=environ.get("ML_PIPELINE_DATABASE") or None,
        )

    @property
    def airflow_url(self) -> str:
        """Base URL of Airflow's API server."""
        return f"http://127.0.0.1:{self.airflow_port}"

    @property
    def local_aws_url(self) -> str:
        """Endpoint URL of every AWS service."""
        return f"http://127.0.0.1:{self.local_aws_port}"

    @property
    def airflow_home(self) -> Path:
        """AIRFLOW_HOME: database, configuration, task logs."""
        return self.home / "airflow"

    @property
    def local_aws_state(self) -> Path:
        """State folder of local_aws."""
        return self.home / "local_aws"

    @property
    def logs(self) -> Path:
        """Folder with a log file for each service."""
        return self.home / "logs"


def _weights(text: str | None) -> str | None:
    if not text or text in ("imagenet", "none"):
        return text or None
    path = Path(text).expanduser().resolve()
    if not path.is_file():
        raise SettingsError(f"WEIGHTS={text} is not a file: give a state_dict file, imagenet or none")
    return str(path)


@dataclass(frozen=True)
class Secrets:
    """Secrets shared by the Airflow components: created once for each home, readable by its owner only."""

    jwt: str
    fernet: str
    admin_password: str
    session: str

    FILE: ClassVar[str] = "secrets.json"

    @classmethod
    def load(cls, home: Path) -> Secrets | None:
        """Read the secrets of a home; None when it has none.

        Raises:
            SettingsError: The file was not written by a run.
        """
        path = home / cls.FILE
        if not path.is_file():
            return None
        try:
            kept = json.loads(path.read_text())
        except ValueError:
            kept = None
        names = {secret.name for secret in fields(cls)}
        if isinstance(kept, dict) and kept.keys() == names - {"session"}:  # of release 0.1.0
            kept["session"] = secrets.token_urlsafe(32)
            cls._write(path, kept)
        if not isinstance(kept, dict) or kept.keys() != names or not all(map(_is_text, kept.values())):
            raise SettingsError(
                f"{path} was not written by a run: give ML_PIPELINE_HOME a folder of its own, "
                "or remove it yourself if a run wrote it"
            )
        return cls(**kept)

    @classmethod
    def load_or_create(cls, home: Path) -> Secrets:
        """Read the secrets of a home, creating them when it has none.

        Raises:
            SettingsError: The file was not written by a run.
        """
        if kept := cls.load(home):
            return kept
        path = home / cls.FILE
        made = cls(
            jwt=secrets.token_urlsafe(48),
            fernet=_fernet_key(),
            admin_password=secrets.token_urlsafe(12),
            session=secrets.token_urlsafe(32),
        )
        home.mkdir(parents=True, exist_ok=True)
        home.chmod(0o700)
        cls._write(path, asdict(made))
        return made

    @staticmethod
    def _write(path: Path, kept: Mapping[str, str]) -> None:
        descriptor = os.open(path.with_suffix(".new"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(kept, file)
        path.with_suffix(".new").replace(path)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _fernet_key() -> str:
    from cryptography.fernet import Fernet

    return Fernet.generate_key().decode()


def airflow_environment(settings: Settings, credentials: Secrets) -> dict[str, str]:
    """Return the environment of every Airflow component and of every client of local_aws (added to os.environ)."""
    from local_aws.iam.credentials import root_key
    from ml_pipeline.settings import LOCAL_REGION, airflow_connection

    home = settings.airflow_home
    key = root_key(settings.local_aws_state)
    return {
        # Marks every process of this home, so that `make stop` can find one that escaped its parent.
        "ML_PIPELINE_SUPERVISED": str(settings.home),
        "LOCAL_AWS_URL": settings.local_aws_url,
        "AWS_ENDPOINT_URL": settings.local_aws_url,
        "AWS_ACCESS_KEY_ID": key.id,
        "AWS_SECRET_ACCESS_KEY": key.secret,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AIRFLOW_CONN_AWS_DEFAULT": airflow_connection(
            settings.local_aws_url, LOCAL_REGION, key.id, key.secret
        ),
        "ML_PIPELINE_AIRFLOW_URL": settings.airflow_url,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "8",
        "AIRFLOW__CORE__FERNET_KEY": credentials.fernet,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{settings.airflow_url}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": settings.database or f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(settings.airflow_port),
        "AIRFLOW__API__BASE_URL": settings.airflow_url,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__SECRET_KEY": credentials.session,
        # A file that changed is parsed at once. Parsing all others every 30 s takes a sixth of a core.
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "300",
        "AIRFLOW__API_AUTH__JWT_SECRET": credentials.jwt,
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        # On a laptop a run waits for each of these delays; the defaults suit a cluster with thousands of tasks.
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
        "AIRFLOW__TRIGGERER__QUEUED_TASK_CHECK_INTERVAL": "1",
        # A task's supervisor may notice the end of its process this late; a trigger that fires earlier costs a retry.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "PYTHONUNBUFFERED": "1",
    }
