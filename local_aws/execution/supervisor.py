"""The parent of one job: isolates it, starts it, and shares its lifetime with local_aws.

Runs as a script (`python -I -S supervisor.py RECORD NAME`) on the standard library only: it must start in a few
milliseconds and must not import anything that the job could shadow. Standard input is the control pipe. Its first
line is the JSON specification that `local_aws.execution.processes` writes; when the pipe closes, which a `kill -9` of
local_aws also causes, the supervisor kills the job and all its descendants.

Exit status: the job's; 125 when its folders could not be mounted, 127 when its program could not be started.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
from typing import Any

sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from local_aws.execution import sandbox

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36

CANNOT_MOUNT, CANNOT_START = 125, 127
LINUX = sys.platform == "linux"
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def _be_init(report: int) -> None:
    """Run as the first process of a pid namespace: fork the job, forward signals, reap, report its end.

    The kernel withholds from a first process every signal without a handler, so the job must not be it: SIGTERM would
    never end a program that keeps the default action. Returns only in the job.
    """
    job = os.fork()
    if job == 0:
        os.setpgid(0, 0)
        return
    _own_group(job)
    for number in FORWARDED:
        signal.signal(number, lambda caught, _frame: _kill(job, caught, group=True))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == job:
            os.write(report, json.dumps(status).encode())
            os._exit(0)


def _become_job(spec: dict[str, Any], parent: int, report: int, gate: Gate) -> None:
    """Turn the forked child into the job; never returns. `report` takes the status of a job under an init."""
    try:
        os.setpgid(0, 0)
        if LINUX:
            _die_with_parent()
            _confine(spec, gate)
            _die_with_parent()  # a change of identity had cleared it
            if os.getppid() not in (parent, 0):  # 0: the parent is outside this process's namespace
                os._exit(CANNOT_START)
        gate.close()
        if os.getpid() == 1:
            _be_init(report)
        os.close(report)
        for number in (*FORWARDED, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.chdir(spec["cwd"])
        os.execvp(spec["argv"][0], spec["argv"])
    except OSError as error:
        os.write(2, f"cannot start {spec['argv'][0]}: {error}\n".encode())
    os._exit(CANNOT_START)


def _die_with_parent() -> None:
    sandbox.libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Gate:
    """Two pipes with which the child waits until its parent has mapped its identity."""

    def __init__(self) -> None:
        self._asked, self._ask = os.pipe()
        self._answered, self._answer = os.pipe()

    def ask(self) -> None:
        """In the child: wait for the parent. Raises OSError when it ended instead."""
        os.write(self._ask, b"?")
        os.close(self._answer)
        if not os.read(self._answered, 1):
            raise OSError("the supervisor ended")

    def answer(self, proc: int, pid: int, identity: tuple[int, int]) -> None:
        """In the parent: map the child's identity as soon as it asks."""
        os.close(self._ask)
        if os.read(self._asked, 1):
            sandbox.map_identity(proc, pid, *identity)
            os.write(self._answer, b"!")

    def close(self) -> None:
        """Close what is still open."""
        for descriptor in (self._asked, self._ask, self._answered, self._answer):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _confine(spec: dict[str, Any], gate: Gate) -> None:
    """Take everything from this process that the job must not have."""
    if not spec["drop_privileges"]:
        return
    if spec["mounts"] is not None:
        sandbox.mount_proc()
    if spec["identity"] is not None:
        sandbox.unshare(sandbox.CLONE_NEWUSER)
        gate.ask()
        sandbox.become_root_inside()
        sandbox.drop_privileges(keep=sandbox.FILE_CAPABILITIES)
        return
    if spec["user"] is not None:
        sandbox.become(spec["user"])
    sandbox.drop_privileges()


def _own_group(job: int) -> None:
    """Give the job its own process group.

    Both sides of the fork call it, so that signals reach it at once.
    """
    try:
        os.setpgid(job, job)
    except (PermissionError, ProcessLookupError):
        return


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def _kill(pid: int, number: int, group: bool) -> None:
    try:
        (os.killpg if group else os.kill)(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _end_everything(job: int) -> int | None:
    """Kill the job's group and, as their subreaper, every descendant that left it.

    Returns:
        The job's raw wait status when it was reaped here, else None.
    """
    status: int | None = None
    while True:
        _kill(job, signal.SIGKILL, group=True)
        for pid in _children():
            _kill(pid, signal.SIGKILL, group=False)
        try:
            pid, raw = os.waitpid(-1, 0)
        except ChildProcessError:
            return status
        if pid == job:
            status = raw


def _supervise(job: int) -> int:
    """Wait for the job's end or the control pipe's; return the job's raw wait status."""
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    status: int | None = None
    while status is None:
        try:
            pid, raw = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return 0
        if pid == job:
            status = raw
        elif pid == 0:
            ready, _, _ = select.select([0, wake], [], [])
            if wake in ready:
                os.read(wake, 4096)
            if 0 in ready and not os.read(0, 4096):
                break
    ended = _end_everything(job)
    return status if status is not None else ended or 0


def _exit_like(status: int) -> None:
    """Exit with the job's status or signal, so that the parent sees it."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        os._exit(code)
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if -code not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
    os._exit(128 - code)


def _read_spec() -> dict[str, Any]:
    line = bytearray()
    while not line.endswith(b"\n"):
        chunk = os.read(0, 65536)
        if not chunk:
            os._exit(CANNOT_START)
        line += chunk
    return dict(json.loads(line))


def _prepare(spec: dict[str, Any]) -> None:
    """Hand the job's folders to its user and mount them. Ends the process when that fails."""
    owner = spec["user"] if spec["identity"] is None else spec["identity"][0]
    try:
        if owner is not None:
            sandbox.give(spec["given"], owner)
        if spec["mounts"] is not None:
            sandbox.mount_all(spec["mounts"])
    except OSError as error:
        os.write(2, f"cannot prepare the job's folders: {error}\n".encode())
        os._exit(CANNOT_MOUNT)


def main() -> None:
    """Read the specification, start the job, wait for it."""
    spec = _read_spec()
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY) if spec["identity"] is not None else -1
    _prepare(spec)
    if LINUX:
        sandbox.libc().prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    pending: list[int] = []
    for number in FORWARDED:
        signal.signal(number, lambda caught, _frame: pending.append(caught))
    if spec["mounts"] is not None and spec["drop_privileges"]:
        sandbox.unshare(sandbox.CLONE_NEWPID)
    parent = os.getpid()
    reported, report = os.pipe()
    gate = Gate()
    # A signal forwarded to a child that still has our handlers would be lost: it waits until they are gone.
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    job = os.fork()
    if job == 0:
        _become_job(spec, parent, report, gate)
    if spec["identity"] is not None:
        gate.answer(proc, job, tuple(spec["identity"]))
    gate.close()
    os.close(report)
    _own_group(job)
    for number in FORWARDED:
        signal.signal(number, lambda caught, _frame: _kill(job, caught, group=True))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    for caught in pending:
        _kill(job, caught, group=True)
    os.close(1)
    os.close(2)
    status = _supervise(job)
    # The status of an init is its own; what became of the job it has written.
    written = os.read(reported, 64)
    _exit_like(json.loads(written) if written else status)


if __name__ == "__main__":
    main()
