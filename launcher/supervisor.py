"""Keeps the services of a run alive: starts them, restarts a dead one with back-off, stops them all.

Run as `python -m launcher.supervisor`; `make run` starts it in the background and it outlives the command.
Its state file tells `make status` and the next `make run` what is up. If the supervisor itself is killed, the
state file still names every child (with its start time, so a reused pid is never mistaken for a child).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

from launcher.services import Service, code_version, services
from launcher.settings import REPOSITORY, Secrets, Settings, airflow_environment

FIRST_BACKOFF_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 30.0
# A child that lived this long had started properly: its next death starts with a short wait again.
SETTLED_SECONDS = 60.0
GRACE_SECONDS = 15.0
STATE_FILE = "supervisor.json"
LOCK_FILE = "supervisor.lock"


def next_backoff(previous: float, lived_seconds: float) -> float:
    """Return the seconds to wait before restarting a dead child: doubles up to a cap, resets after a long life."""
    if previous == 0 or lived_seconds >= SETTLED_SECONDS:
        return FIRST_BACKOFF_SECONDS
    return min(previous * 2, LONGEST_BACKOFF_SECONDS)


@dataclass
class Child:
    """A service's current process and its history."""

    name: str
    pid: int = 0
    create_time: float = 0.0
    restarts: int = 0
    last_exit: int | None = None
    restart_at: float = 0.0
    backoff: float = 0.0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def record(self) -> dict[str, object]:
        """Return its entry in the state file."""
        return {
            "pid": self.pid if self.process is not None else 0,
            "create_time": self.create_time,
            "restarts": self.restarts,
            "last_exit": self.last_exit,
        }


class Supervisor:
    """Owns one process per service. Not thread safe: one thread calls it."""

    def __init__(
        self, wanted: tuple[Service, ...], environ: Mapping[str, str], home: Path, ports: Mapping[str, int]
    ) -> None:
        self.services = {service.name: service for service in wanted}
        self.children = {name: Child(name) for name in self.services}
        self.environ = dict(environ)
        self.home = home
        self.ports = dict(ports)
        self.code = code_version()
        self.stopping = threading.Event()
        (home / "logs").mkdir(parents=True, exist_ok=True)

    def run(self, poll_seconds: float = 0.5) -> None:
        """Start every service and supervise them until `stopping` is set, then stop them all."""
        try:
            while not self.stopping.is_set():
                if self.step(time.monotonic()):
                    self.save()
                self.stopping.wait(poll_seconds)
        finally:
            self.stop()

    def step(self, now: float) -> bool:
        """Start services that are due and record those that died; return true when anything changed."""
        changed = False
        for child in self.children.values():
            if child.process is not None and child.process.poll() is not None:
                self._bury(child, now)
                changed = True
            if child.process is None and now >= child.restart_at:
                self._start(child)
                changed = True
        return changed

    def _start(self, child: Child) -> None:
        service = self.services[child.name]
        with self._log(child.name) as log:
            child.process = subprocess.Popen(
                service.argv, env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=REPOSITORY, start_new_session=True,
            )  # fmt: skip
        child.pid = child.process.pid
        child.create_time = _create_time(child.pid)

    def _bury(self, child: Child, now: float) -> None:
        assert child.process is not None
        lived = time.time() - child.create_time
        child.last_exit = child.process.returncode
        child.backoff = next_backoff(child.backoff, lived)
        child.restart_at = now + child.backoff
        child.restarts += 1
        _end_session(child.pid)  # its children would hold its port or run unsupervised tasks
        child.process = None
        with self._log(child.name) as log:
            ending = f"{child.name} ended with {child.last_exit}"
            log.write(f"supervisor: {ending}, starting again in {child.backoff:g} s\n".encode())

    def _log(self, name: str) -> IO[bytes]:
        return open(self.home / "logs" / f"{name}.log", "ab")

    def save(self) -> None:
        """Write the state file atomically, so that a reader never sees half of it."""
        state = {
            "pid": os.getpid(),
            "create_time": _create_time(os.getpid()),
            "ports": self.ports,
            "code": self.code,
            "children": {name: child.record() for name, child in self.children.items()},
        }
        new = self.home / f"{STATE_FILE}.new"
        new.write_text(json.dumps(state, indent=1))
        new.replace(self.home / STATE_FILE)

    def stop(self) -> None:
        """Stop the services, last started first, so that jobs lose their AWS last."""
        for child in reversed(self.children.values()):
            if child.process is None:
                continue
            child.process.terminate()
            try:
                child.process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
            _end_session(child.pid)
            child.process = None
        (self.home / STATE_FILE).unlink(missing_ok=True)


def _create_time(pid: int) -> float:
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return -math.inf


def _end_session(session: int) -> None:
    """Kill what is left of a child's session (the child led it, see start_new_session)."""
    for process in psutil.process_iter(["pid"]):
        with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
            if process.pid != session and _session(process.pid) == session:
                process.kill()


def read_state(home: Path) -> dict[str, Any] | None:
    """Return the state of the live supervisor, or None when none runs for this home."""
    state = _recorded(home)
    return state if state is not None and is_alive(state) else None


def _recorded(home: Path) -> dict[str, Any] | None:
    try:
        state: dict[str, Any] = json.loads((home / STATE_FILE).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return state


def is_alive(record: Mapping[str, Any]) -> bool:
    """Return true while the process of a {"pid", "create_time"} record runs (not another with its pid)."""
    return record["pid"] > 0 and abs(_create_time(record["pid"]) - record["create_time"]) < 1.0


def start_in_background(settings: Settings) -> None:
    """Start a supervisor that outlives this process."""
    settings.logs.mkdir(parents=True, exist_ok=True)
    with open(settings.logs / "supervisor.log", "ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "launcher.supervisor"],
            cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            env={
                **os.environ,
                "ML_PIPELINE_HOME": str(settings.home),
                "AIRFLOW_PORT": str(settings.airflow_port),
                "LOCAL_AWS_PORT": str(settings.local_aws_port),
            },
        )  # fmt: skip


def stop_everything(settings: Settings) -> list[int]:
    """Stop the supervisor and every process with this home's mark; return the pids that had to be killed."""
    state = _recorded(settings.home)
    if state is not None and is_alive(state):
        supervisor = psutil.Process(state["pid"])
        supervisor.terminate()
        with contextlib.suppress(psutil.TimeoutExpired):
            supervisor.wait(GRACE_SECONDS * 5)
    killed = left_processes(settings.home, state)
    for process in killed:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(killed, timeout=GRACE_SECONDS)
    (settings.home / STATE_FILE).unlink(missing_ok=True)
    return [process.pid for process in killed]


def left_processes(home: Path, state: Mapping[str, Any] | None) -> list[psutil.Process]:
    """Find the running processes of a home: by its mark in their environment, or by a recorded child's session.

    Airflow renames its processes and so overwrites their environment: those are found by session. A session id
    is not reused while a process of the session lives.
    """
    mine = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    sessions = set()
    for child in (state or {}).get("children", {}).values():
        if child["pid"] and (is_alive(child) or not psutil.pid_exists(child["pid"])):
            sessions.add(child["pid"])
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid not in mine and (_session(process.pid) in sessions or _mark(process) == str(home)):
                found.append(process)
    return found


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return -1


def _mark(process: psutil.Process) -> str | None:
    return process.environ().get("ML_PIPELINE_SUPERVISED")


def main() -> None:
    """Supervise the home of the environment's settings; only one supervisor runs for each home."""
    settings = Settings.from_environ(os.environ)
    settings.home.mkdir(parents=True, exist_ok=True)
    with open(settings.home / LOCK_FILE, "w") as lock:  # the kernel releases it however this process ends
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("a supervisor is already running for this home")
        supervise(settings)


def supervise(settings: Settings) -> None:
    """Run the services until SIGTERM or SIGINT."""
    environ = {**os.environ, **airflow_environment(settings, Secrets.load_or_create(settings.home))}
    ports = {"airflow": settings.airflow_port, "local_aws": settings.local_aws_port}
    supervisor = Supervisor(services(settings), environ, settings.home, ports)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stopping.set())
    supervisor.run()


if __name__ == "__main__":
    main()
