"""A new installation's .env, and a PostgreSQL for the services of docker-compose.yaml."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.docker import compose
from tests.docker.stack import postgres, postgres_programs

new_env = compose.script("new_env.py")


@pytest.fixture(scope="module")
def environ() -> dict[str, str]:
    """The .env of a new installation, without a word changed."""
    return compose.read_env(new_env.filled((compose.ROOT / ".env.example").read_text()))


@pytest.fixture(scope="module")
def database(environ: dict[str, str]) -> Iterator[int]:
    """The port of a PostgreSQL with the user and database `airflow`."""
    programs = postgres_programs()
    assert programs is not None
    with postgres(programs, environ["POSTGRES_PASSWORD"]) as port:
        yield port
