"""The parent of one job: isolates it, starts it, and shares its lifetime with local_aws.

Runs as a script (`python -I -S supervisor.py RECORD NAME`) on the standard library only: it must start in a few
milliseconds and must not import anything that the job could shadow. Standard input is the control pipe. Its first
line is the JSON specification that `local_aws.execution.processes` writes; when the pipe closes, which a `kill -9` of
local_aws also causes, the supervisor kills the job and all its descendants.

Exit status: the job's; 125 when its folders could not be mounted, 127 when its program could not be started.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import select
import signal
import stat
import sys
from collections.abc import Iterable, Sequence
from typing import Any

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID = 0x00020000, 0x10000000, 0x20000000
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 24, 36, 38
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1
LAST_CAPABILITY = 63

CANNOT_MOUNT, CANNOT_START = 125, 127
LINUX = sys.platform == "linux"
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class MountAttributes(ctypes.Structure):
    """`struct mount_attr` of mount_setattr(2)."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns_fd")]


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    result = _libc().mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3])
    _check(result, f"mount {source} on {target}")


def _set_read_only(path: str, read_only: bool) -> None:
    wanted = MountAttributes()
    setattr(wanted, "set" if read_only else "clear", MOUNT_ATTR_RDONLY)
    result = _libc().syscall(
        SYS_MOUNT_SETATTR,
        AT_FDCWD,
        os.fsencode(path),
        AT_RECURSIVE,
        ctypes.byref(wanted),
        ctypes.sizeof(wanted),
    )
    _check(result, f"make {path} {'read-only' if read_only else 'writable'}")


def _new_namespace() -> None:
    """Enter a private mount namespace: directly as root, else inside a user namespace that keeps the uid."""
    uid, gid = os.getuid(), os.getgid()
    if uid != 0 or _libc().unshare(CLONE_NEWNS) != 0:
        _check(_libc().unshare(CLONE_NEWUSER | CLONE_NEWNS), "unshare")
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    _mount("none", "/", None, MS_REC | MS_PRIVATE)


def _mirror(folder: str) -> None:
    """Cover a folder with a tmpfs that shows its contents, so that a mount point can be added to it."""
    original = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    inside = f"/proc/self/fd/{original}"
    names = os.listdir(inside)
    _mount("tmpfs", folder, "tmpfs", 0, "mode=0755")
    for name in names:
        source, target = f"{inside}/{name}", os.path.join(folder, name)
        if os.path.islink(source):
            os.symlink(os.readlink(source), target)
            continue
        if stat.S_ISDIR(os.lstat(source).st_mode):
            os.mkdir(target)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o600))
        _mount(source, target, None, MS_BIND | MS_REC)
    os.close(original)


def _ensure_mount_point(target: str, ours: list[str]) -> None:
    """Create a mount point without creating anything on the host's own file systems.

    `ours` are the places mounted already: creating a folder below one of them touches nothing else.
    """
    if os.path.exists(target):
        return
    parent = os.path.dirname(target)
    while not os.path.isdir(parent):
        parent = os.path.dirname(parent)
    if any(parent == place or parent.startswith(place + "/") for place in ours):
        os.makedirs(target)
        return
    if parent == "/":
        raise FileNotFoundError(
            f"{target} cannot be made visible: {os.path.dirname(target)} does not exist here"
        )
    _mirror(parent)
    os.makedirs(target)


def mount_all(
    binds: Sequence[tuple[str, str]], hidden: Iterable[str], shown: Iterable[str], writable: list[str] | None
) -> None:
    """Give this process its own view of the file system.

    `hidden` folders appear empty; `binds` are (source, target) pairs, mounted in order and after that, so
    that a part of a hidden folder can be shown; `shown` folders keep their place under either; with `writable`
    (a list, possibly empty) everything but those paths and the bind targets becomes read-only.
    """
    _new_namespace()
    pairs = [*binds, *((folder, folder) for folder in shown)]
    opened = [(os.open(source, os.O_PATH), target) for source, target in pairs]
    ours: list[str] = []
    for folder in hidden:
        _mount("tmpfs", folder, "tmpfs", 0, "mode=0755")
        ours.append(folder)
    for descriptor, target in opened:
        _ensure_mount_point(target, ours)
        _mount(f"/proc/self/fd/{descriptor}", target, None, MS_BIND | MS_REC)
        os.close(descriptor)
        ours.append(target)
    if writable is not None:
        open_paths = [*writable, *(target for _, target in binds)]
        for path in writable:
            _mount(path, path, None, MS_BIND | MS_REC)
        try:
            _set_read_only("/", True)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
            return  # Linux before 5.12 cannot: the host is then protected by the other means alone
        for path in open_paths:
            _set_read_only(path, False)


def _drop_privileges() -> None:
    """Drop every capability, even root's: the job owns its files and nothing else of the machine."""
    libc = _libc()
    for capability in range(LAST_CAPABILITY + 1):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


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


def _become_job(spec: dict[str, Any], parent: int, report: int) -> None:
    """Turn the forked child into the job; never returns. `report` takes the status of a job under an init."""
    try:
        os.setpgid(0, 0)
        if LINUX:
            _libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() not in (parent, 0):  # 0: the parent is outside this process's namespace
                os._exit(CANNOT_START)
            if spec["drop_privileges"]:
                if spec["mounts"] is not None:
                    # Of the namespace of processes that main() made this is the first: /proc shows no other.
                    # A container runtime may cover parts of /proc; the kernel then refuses another mount, and it stays.
                    with contextlib.suppress(PermissionError):
                        _mount("proc", "/proc", "proc", 0)
                _drop_privileges()
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


def main() -> None:
    """Read the specification, start the job, wait for it."""
    spec = _read_spec()
    if spec["mounts"] is not None:
        mounts = spec["mounts"]
        try:
            binds = [tuple(pair) for pair in mounts["binds"]]
            mount_all(binds, mounts["hidden"], mounts["shown"], mounts["writable"])
        except OSError as error:
            os.write(2, f"cannot prepare the job's folders: {error}\n".encode())
            os._exit(CANNOT_MOUNT)
    if LINUX:
        _libc().prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    pending: list[int] = []
    for number in FORWARDED:
        signal.signal(number, lambda caught, _frame: pending.append(caught))
    if spec["mounts"] is not None and spec["drop_privileges"]:
        _check(_libc().unshare(CLONE_NEWPID), "unshare")
    parent = os.getpid()
    reported, report = os.pipe()
    # A signal forwarded to a child that still has our handlers would be lost: it waits until they are gone.
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    job = os.fork()
    if job == 0:
        _become_job(spec, parent, report)
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
