"""Process groups: a program, its descendants, and a supervisor that ends them all.

The supervisor (`supervisor.py`) mounts the group's folders, kills what is left when the program ends, and kills
everything when local_aws dies, by any signal. A record on disk (pid, birth time) identifies a running group;
`end_orphans` reads the records of an earlier local_aws.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from local_aws.execution.isolation import JOB_USER, Isolation, Support, identity

OPT_ML = "/opt/ml"
MARKER = "LOCAL_AWS_GROUP"
JOB_UMASK = 0o022  # local_aws itself creates files for its owner only; programs expect the usual mask
LONGEST_LINE = 256 * 1024  # CloudWatch Logs cuts events at 256 KiB
BIRTH_TOLERANCE_SECONDS = 2.0  # psutil derives birth times from the boot time, which clock adjustments move
SUPERVISOR = Path(__file__).with_name("supervisor.py")

EVERYTHING = Isolation()

LogSink = Callable[[bytes], None] | Path


@functools.cache
def support() -> Support:
    """Return the isolation that this platform allows; tried once per process.

    LOCAL_AWS_NAMESPACES=off in the environment rules out namespaces.
    """
    if sys.platform != "linux":
        return Support.NONE
    if os.environ.get("LOCAL_AWS_NAMESPACES") != "off":
        if identity() is not None and _probe(identity(), None):
            return Support.OWN_USERS
        if _probe(None, None):
            return Support.OWN_FILES
    return Support.OTHER_USER if os.geteuid() == 0 and _probe(None, JOB_USER, mounted=False) else Support.NONE


def namespaces_supported() -> bool:
    """Return True when a private /opt/ml can be mounted here, as root or in a user namespace."""
    return support() in (Support.OWN_USERS, Support.OWN_FILES)


def _probe(mapped: tuple[int, int] | None, user: int | None, mounted: bool = True) -> bool:
    """Return True when a program can be started with this isolation."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        mounts = {"binds": [(str(root), OPT_ML)], "hidden": [], "private": [], "shown": [], "writable": []}
        probe = _launch(
            ["/bin/sh", "-c", f"test -d {OPT_ML} && touch {OPT_ML}/probe" if mounted else "true"],
            env={"PATH": os.defpath},
            cwd=Path("/"),
            confinement=Confinement(
                mounts if mounted else None, True, mapped, user, [str(root)] if mounted else []
            ),
            record=root / "probe",
            name="probe",
            output=subprocess.DEVNULL,
        )
        works = probe.wait(timeout=30) == 0
        _close(probe.stdin)
    return works


@dataclass(frozen=True)
class Confinement:
    """The part of the supervisor's specification that isolates a group.

    Attributes:
        mounts: See `sandbox.mount_all`; None for the machine as it is.
        drop_privileges: Take every privilege on the host.
        identity: First host user and number of users of its user namespace.
        user: The host user to run as, where there are no namespaces.
        given: Paths that the group's user owns.
    """

    mounts: dict[str, Any] | None
    drop_privileges: bool
    identity: tuple[int, int] | None
    user: int | None
    given: list[str]


def _confinement(opt_ml: Path | None, isolation: Isolation, record: Path) -> Confinement:
    level = support() if isolation.drop_privileges else None
    given = [
        str(path) for path in (*isolation.binds.values(), *isolation.given, *([opt_ml] if opt_ml else []))
    ]
    if not namespaces_supported():
        reachable = opt_ml is not None and _reachable(opt_ml, record)
        user = JOB_USER if level is Support.OTHER_USER and reachable else None
        return Confinement(None, isolation.drop_privileges, None, user, given if user else [])
    mapped = identity() if level is Support.OWN_USERS else None
    return Confinement(_mounts(opt_ml, isolation, record), isolation.drop_privileges, mapped, None, given)


def _reachable(folder: Path, record: Path) -> bool:
    """Let another user pass through our own state folder to `folder`; False when a folder above is closed."""
    state = Path(os.path.commonpath([folder, record]))
    for parent in folder.parents:
        mode = parent.stat().st_mode
        if not mode & stat.S_IXOTH:
            if not parent.is_relative_to(state):
                return False
            parent.chmod(mode | stat.S_IXGRP | stat.S_IXOTH)
    return True


def opt_ml_seen_at(folder: Path) -> str:
    """Return the path at which a group started with `opt_ml=folder` sees that folder."""
    return OPT_ML if namespaces_supported() else str(folder)


class ProcessGroup:
    """One running program and its descendants. Create with `start`; thread-safe."""

    def __init__(self, process: subprocess.Popen[bytes], record: Path, name: str) -> None:
        self._process = process
        self._record = record
        self._readers: list[threading.Thread] = []
        self._reaped = threading.Lock()
        self.name = name

    @classmethod
    def start(
        cls,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        log: LogSink,
        name: str,
        record: Path,
        opt_ml: Path | None = None,
        isolation: Isolation = EVERYTHING,
    ) -> ProcessGroup:
        """Start a program.

        Args:
            argv: The command. Where /opt/ml cannot be mounted, arguments and environment values that begin with /opt/ml
                are rewritten to `opt_ml`.
            env: The whole environment.
            cwd: The working folder.
            log: Called with each line of standard output and error, without its line end; or a file to append to.
            name: The group's name in logs.
            record: A file that exists while the group runs.
            opt_ml: The folder mounted at /opt/ml.
            isolation: The group's view of the machine.

        Raises:
            OSError: The program cannot be started.
        """
        mounted = namespaces_supported()
        rewrite = _identity if opt_ml is None or mounted else functools.partial(_rewrite, folder=opt_ml)
        record.parent.mkdir(parents=True, exist_ok=True)
        process = _launch(
            [rewrite(argument) for argument in argv],
            env={key: rewrite(value) for key, value in env.items()},
            cwd=_cwd_seen(cwd, opt_ml) if mounted else cwd,
            confinement=_confinement(opt_ml, isolation, record),
            record=record,
            name=name,
            output=subprocess.PIPE if callable(log) else log,
        )
        group = cls(process, record, name)
        group._write_record()
        if callable(log):
            group._follow(log)
        return group

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        return self._process.pid

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal, or None while the group runs."""
        status = self._process.poll()
        if status is not None:
            self._forget()
        return status

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and for the last log line.

        Raises:
            subprocess.TimeoutExpired: The group outlived `timeout` seconds.
        """
        status = self._process.wait(timeout)
        for reader in self._readers:
            if reader is not threading.current_thread():
                reader.join()
        self._forget()
        return status

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every process of the group."""
        if self._process.poll() is None:
            self._process.send_signal(number)

    def terminate(self, grace_seconds: float) -> int:
        """Send SIGTERM, then SIGKILL after `grace_seconds`; return the exit status."""
        self.signal(signal.SIGTERM)
        try:
            return self.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """Kill the program and all its descendants; return the exit status."""
        _close(self._process.stdin)
        try:
            return self.wait(10)
        except subprocess.TimeoutExpired:
            _end_group(str(self._record), self.pid)
            return self.wait(10)

    def _write_record(self) -> None:
        try:
            born = psutil.Process(self.pid).create_time()
        except psutil.NoSuchProcess:
            return
        partial = self._record.with_name(self._record.name + ".partial")
        partial.write_text(json.dumps({"pid": self.pid, "born": born, "name": self.name}))
        partial.replace(self._record)

    def _follow(self, log: Callable[[bytes], None]) -> None:
        assert self._process.stdout is not None
        reader = threading.Thread(
            target=_deliver_lines, args=(self._process.stdout, log), name=f"log of {self.name}", daemon=True
        )
        reader.start()
        self._readers.append(reader)

    def _forget(self) -> None:
        with self._reaped:
            _close(self._process.stdin)
            self._record.unlink(missing_ok=True)
            self._record.with_name(self._record.name + ".hosts").unlink(missing_ok=True)


def end_orphans(record_dir: Path) -> list[str]:
    """End the groups that an earlier local_aws left running.

    Only the recorded process (same pid, same birth time) and carriers of the record's marker are ended.

    Returns:
        The names of the groups found alive.
    """
    ended = []
    for record in sorted(record_dir.glob("*")):
        if record.suffix in (".partial", ".hosts"):
            record.unlink(missing_ok=True)
            continue
        try:
            known = json.loads(record.read_text())
        except (OSError, ValueError):
            known = {}
        pid = known.get("pid")
        if _end_group(str(record), pid if _is_alive(pid, known.get("born")) else None):
            ended.append(str(known.get("name", record.name)))
        record.unlink(missing_ok=True)
    return ended


def _identity(text: str) -> str:
    return text


def _rewrite(text: str, folder: Path) -> str:
    if text == OPT_ML or text.startswith(OPT_ML + "/"):
        return str(folder) + text[len(OPT_ML) :]
    return text


def _cwd_seen(cwd: Path, opt_ml: Path | None) -> Path:
    """Name the working folder by its path under /opt/ml, so that `..` never leads to other jobs' folders."""
    if opt_ml is not None and cwd.is_relative_to(opt_ml):
        return OPT_ML / cwd.relative_to(opt_ml)
    return cwd


def _mounts(opt_ml: Path | None, isolation: Isolation, record: Path) -> dict[str, Any] | None:
    binds = [(str(source), target) for target, source in isolation.binds.items()]
    if opt_ml is not None:
        binds.append((str(opt_ml), OPT_ML))
    if isolation.hosts:
        hosts = record.with_name(record.name + ".hosts")
        lines = [f"{address}\t{host}\n" for host, address in isolation.hosts.items()]
        hosts.write_text(Path("/etc/hosts").read_text() + "\n" + "".join(lines))
        hosts.chmod(0o644)
        binds.append((str(hosts), "/etc/hosts"))
    if not binds and not isolation.hidden and isolation.writable is None:
        return None
    return {
        "binds": binds,
        "hidden": [str(path) for path in isolation.hidden],
        "private": [str(path) for path in isolation.private],
        "shown": [str(path) for path in isolation.shown],
        "writable": None if isolation.writable is None else [str(path) for path in isolation.writable],
    }


def _launch(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    confinement: Confinement,
    record: Path,
    name: str,
    output: int | Path,
) -> subprocess.Popen[bytes]:
    spec = {"argv": list(argv), "cwd": str(cwd), **vars(confinement)}
    file = output.open("ab") if isinstance(output, Path) else None
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(SUPERVISOR), str(record), name],
            env={**env, MARKER: str(record)},
            stdin=subprocess.PIPE,
            stdout=output if isinstance(output, int) else file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=JOB_UMASK,
        )
    finally:
        _close(file)
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(spec).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        process.wait()
    return process


def _deliver_lines(stream: IO[bytes], log: Callable[[bytes], None]) -> None:
    """Deliver lines as they arrive.

    A carriage return also ends a line; otherwise a progress bar would be one endless line.
    """
    rest = b""
    descriptor = stream.fileno()
    while chunk := os.read(descriptor, 65536):
        *lines, rest = (rest + chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")).split(b"\n")
        for line in lines:
            log(line)
        while len(rest) > LONGEST_LINE:
            log(rest[:LONGEST_LINE])
            rest = rest[LONGEST_LINE:]
    if rest:
        log(rest)
    stream.close()


def _close(stream: IO[bytes] | None) -> None:
    if stream is not None:
        try:
            stream.close()
        except BrokenPipeError:
            return


def _is_alive(pid: object, born: object) -> bool:
    if not isinstance(pid, int) or not isinstance(born, int | float):
        return False
    try:
        return abs(psutil.Process(pid).create_time() - born) < BIRTH_TOLERANCE_SECONDS
    except psutil.Error:
        return False


def _end_group(marker: str, supervisor: int | None) -> bool:
    """Kill the supervisor and every process that carries `marker`.

    A process may fork between a scan and its kill, so scan until none is left.

    Returns:
        True when any was alive.
    """
    found = False
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        alive = _carriers(marker, supervisor)
        if not alive:
            return found
        found = True
        for process in alive:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(alive, timeout=1)
    return found


def _carriers(marker: str, supervisor: int | None) -> list[psutil.Process]:
    carriers = []
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.pid == supervisor or process.environ().get(MARKER) == marker:
                carriers.append(process)
        except (psutil.Error, OSError):
            continue
    return carriers
