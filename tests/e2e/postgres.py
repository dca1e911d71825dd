"""A PostgreSQL server of its own, on loopback."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from launcher.preflight import free_port

_PROGRAMS = ":".join([os.environ.get("PATH", ""), *map(str, Path("/usr/lib/postgresql").glob("*/bin"))])


class Postgres:
    """Runs while it is entered; `url` is for SQLAlchemy."""

    def __init__(self) -> None:
        if not shutil.which("initdb", path=_PROGRAMS):
            pytest.skip("needs PostgreSQL's server: apt-get install postgresql")
        self.port = free_port()
        self.url = f"postgresql+psycopg2://airflow@127.0.0.1:{self.port}/postgres"

    def __enter__(self) -> Postgres:
        # Not below pytest's folders: the server may not run as root, and those are for their owner only.
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
        self._run("initdb", "-U", "airflow", "--auth=trust", "--no-sync")
        self.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder}"
        self._run("pg_ctl", "start", "-w", "-t", "300", "-o", options, "-l", str(self.folder / "log"))

    def stop(self) -> None:
        """End it without a word to its clients, as a crash does."""
        self._run("pg_ctl", "stop", "-w", "-m", "immediate")

    def _run(self, program: str, *arguments: str) -> None:
        user = pwd.getpwnam("postgres").pw_uid if os.geteuid() == 0 else None
        argv = [str(shutil.which(program, path=_PROGRAMS)), "-D", str(self.folder / "data"), *arguments]
        subprocess.run(argv, user=user, cwd=self.folder, check=True, stdout=subprocess.DEVNULL, timeout=400)
