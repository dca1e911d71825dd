"""Derives the settings that all containers of docker-compose.yaml share, then executes the given command.

COMPOSE_PROFILES is the one setting: with `local-aws` in it every container talks to that service, without it
to the real AWS; with `celery` in it tasks run on Celery workers, without it in the scheduler's container.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from urllib.parse import quote

# Of libpq: a server that is gone without a word ends its connections in half a minute. By default the scheduler would
# wait for its answer for two hours.
_KEEPALIVE = "keepalives_idle=10&keepalives_interval=5&keepalives_count=3&tcp_user_timeout=30000"


class EntrypointError(ValueError):
    """The environment cannot work; the message names the setting to change."""


def profiles(environ: Mapping[str, str]) -> set[str]:
    """Return the active compose profiles."""
    return {name.strip() for name in environ.get("COMPOSE_PROFILES", "").split(",") if name.strip()}


def derived(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that follow from `environ`, so that each fact is set once.

    Raises:
        EntrypointError: A required value is missing.
        ml_pipeline.settings.SettingsError: A setting of the pipeline is missing or malformed.
    """
    active = profiles(environ)
    return {
        **_database(environ),
        **_executor(environ, "celery" in active),
        **_aws(environ, "local-aws" in active),
    }


def _database(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{_postgres(environ)}?{_KEEPALIVE}",
        # Airflow would make it of the other one, and asyncpg does not know these settings.
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": f"postgresql+asyncpg://{_postgres(environ)}",
    }


def _postgres(environ: Mapping[str, str]) -> str:
    # Quoted, so that a password may hold any character.
    password = quote(_required(environ, "POSTGRES_PASSWORD"), safe="")
    host, port = environ.get("POSTGRES_HOST") or "postgres", environ.get("POSTGRES_PORT") or "5432"
    return f"airflow:{password}@{host}:{port}/airflow"


def _executor(environ: Mapping[str, str], celery: bool) -> dict[str, str]:
    if not celery:
        return {"AIRFLOW__CORE__EXECUTOR": "LocalExecutor"}
    password = quote(_required(environ, "REDIS_PASSWORD"), safe="")
    host, port = environ.get("REDIS_HOST") or "redis", environ.get("REDIS_PORT") or "6379"
    return {
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__CELERY__BROKER_URL": f"redis://:{password}@{host}:{port}/0",
        "AIRFLOW__CELERY__RESULT_BACKEND": f"db+postgresql://{_postgres(environ)}?{_KEEPALIVE}",
    }


def _aws(environ: Mapping[str, str], local: bool) -> dict[str, str]:
    from ml_pipeline.settings import LOCAL_REGION, Settings, airflow_connection

    if not local:
        # Credentials come from the host's role or from AWS_* variables: botocore's own chain.
        settings = Settings.load({**environ, "LOCAL_AWS_URL": ""})
        extra = {"region_name": settings.region, "config_kwargs": {"retries": {"mode": "standard"}}}
        return {
            "LOCAL_AWS_URL": "",
            "AIRFLOW_CONN_AWS_DEFAULT": json.dumps({"conn_type": "aws", "extra": extra}),
        }
    url = _required(environ, "LOCAL_AWS_URL")
    key, secret = (_required(environ, f"LOCAL_AWS_{name}") for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"))
    return {
        "LOCAL_AWS_URL": url,
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": LOCAL_REGION,
        "AIRFLOW_CONN_AWS_DEFAULT": airflow_connection(url, LOCAL_REGION, key, secret),
    }


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name)
    if not value:
        raise EntrypointError(
            f"{name} is not set: docker-compose.yaml takes it from .env (docker/new_env.py)"
        )
    return value


def check_command(argv: list[str], environ: Mapping[str, str]) -> None:
    """Refuse a worker that `--profile celery` started when COMPOSE_PROFILES does not name celery.

    Raises:
        EntrypointError: A Celery worker is to run, and COMPOSE_PROFILES does not name celery.
    """
    if argv[:2] == ["airflow", "celery"] and "celery" not in profiles(environ):
        raise EntrypointError(
            "a Celery worker was started, but COMPOSE_PROFILES does not name celery: set it in .env, "
            "where every container reads it, instead of --profile"
        )


def main(argv: list[str]) -> None:
    """Replace this process with `argv`, in the derived environment; exit with one line when it cannot work."""
    try:
        if not argv:
            raise EntrypointError("no command given: airflow scheduler, for example")
        check_command(argv, os.environ)
        environ = {**os.environ, **derived(os.environ)}
    except ValueError as error:  # EntrypointError and SettingsError
        sys.exit(f"entrypoint: {error}")
    os.execvpe(argv[0], argv, environ)


if __name__ == "__main__":
    main(sys.argv[1:])
