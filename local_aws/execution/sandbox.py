"""The view that a job has of the machine: its mounts, its identity, and no privileges.

Runs in the supervisor, before the job is forked, on the standard library only. As root the job gets a user namespace
whose root is an unprivileged user of the host; as another user it keeps that user, without any capability.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Iterable, Sequence
from typing import Any

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID = 0x00020000, 0x10000000, 0x20000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC = 1, 2, 4, 8, 32, 4096, 16384
MS_PRIVATE = 1 << 18
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1
LAST_CAPABILITY = 63
FILE_CAPABILITIES = frozenset({0, 1, 3, 4, 5, 6, 7})
"""CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID: kept by the root of a user namespace of its own."""

READ_ONLY_PROC = ("sys", "sysrq-trigger", "irq", "bus", "fs", "acpi", "scsi")
MASKED_PROC = ("kcore", "keys", "latency_stats", "timer_list", "sched_debug")


class MountAttributes(ctypes.Structure):
    """`struct mount_attr` of mount_setattr(2)."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns_fd")]


def libc() -> ctypes.CDLL:
    """Return the C library."""
    return ctypes.CDLL(None, use_errno=True)


def check(result: int, action: str) -> None:
    """Raise OSError for a failed call of the C library."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{action}: {os.strerror(number)}")


def mount_all(mounts: dict[str, Any]) -> None:
    """Give this process its own view of the file system.

    Args:
        mounts: `hidden` folders appear empty, `private` ones are an empty tmpfs to write, `binds` (source, target) and
            `shown` paths appear at their target, deeper paths on top of shallower ones; with `writable` (a list,
            possibly empty) everything but those paths, the private ones and the bind targets is read-only.

    Raises:
        OSError: A path cannot be mounted.
    """
    _new_namespace()
    pairs = [*mounts["binds"], *((path, path) for path in mounts["shown"])]
    opened = {target: os.open(source, os.O_PATH) for source, target in pairs}
    empty = {**dict.fromkeys(mounts["hidden"], "mode=0755"), **dict.fromkeys(mounts["private"], "mode=1777")}
    ours: list[str] = []
    for target in sorted({*opened, *empty}, key=lambda path: path.count("/")):
        descriptor = opened.get(target)
        if target in empty and os.path.isdir(target):
            _mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV, empty[target])
        if descriptor is not None:
            is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            _ensure_mount_point(target, ours, is_folder)
            _mount(f"/proc/self/fd/{descriptor}", target, None, MS_BIND | MS_REC)
            os.close(descriptor)
        ours.append(target)
    if mounts["writable"] is not None:
        targets = [target for _, target in mounts["binds"]]
        private = [path for path in mounts["private"] if os.path.isdir(path)]
        _make_read_only([*mounts["writable"], *private], targets, mounts["shown"])


def mount_proc() -> None:
    """Mount a /proc of this pid namespace whose host-wide settings are read-only.

    Where a container runtime covers parts of /proc, the kernel refuses another mount; then /proc stays as it is.
    """
    with contextlib.suppress(PermissionError):
        _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for name in READ_ONLY_PROC:
        path = f"/proc/{name}"
        if os.path.exists(path):
            with contextlib.suppress(PermissionError):
                _mount(path, path, None, MS_BIND | MS_REC)
                _mount(path, path, None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for name in MASKED_PROC:
        path = f"/proc/{name}"
        if os.path.exists(path):
            with contextlib.suppress(PermissionError):
                _mount(os.devnull, path, None, MS_BIND)


def unshare(flags: int) -> None:
    """Leave the namespaces of the parent. Raises OSError where that is not allowed."""
    check(libc().unshare(flags), "unshare")


def map_identity(proc: int, pid: int, first: int, count: int) -> None:
    """Make uid and gid 0.. of a process's user namespace the host's `first`... `proc` is a descriptor of /proc."""
    for name in ("uid_map", "gid_map"):
        file = os.open(f"{pid}/{name}", os.O_WRONLY, dir_fd=proc)
        try:
            os.write(file, f"0 {first} {count}\n".encode())
        finally:
            os.close(file)


def become_root_inside() -> None:
    """Take uid 0 and gid 0 of the user namespace, and leave all other groups."""
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def become(user: int) -> None:
    """Take another user's identity permanently."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def drop_privileges(keep: Iterable[int] = ()) -> None:
    """Drop every capability but `keep` at the next exec, and rule out gaining any."""
    kept, library = frozenset(keep), libc()
    for capability in range(LAST_CAPABILITY + 1):
        if capability not in kept:
            library.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    library.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def give(paths: Sequence[str], user: int) -> None:
    """Make `user` the owner of files and folders, links themselves included but not followed."""
    for path in paths:
        os.chown(path, user, user, follow_symlinks=False)
        if os.path.isdir(path) and not os.path.islink(path):
            for _, folders, files, descriptor in os.fwalk(path):
                for name in (*folders, *files):
                    os.chown(name, user, user, dir_fd=descriptor, follow_symlinks=False)


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    result = libc().mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3])
    check(result, f"mount {source} on {target}")


def _new_namespace() -> None:
    """Enter a private mount namespace: directly as root, else inside a user namespace that keeps the uid."""
    uid, gid = os.getuid(), os.getgid()
    if uid != 0 or libc().unshare(CLONE_NEWNS) != 0:
        unshare(CLONE_NEWUSER | CLONE_NEWNS)
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    _mount("none", "/", None, MS_REC | MS_PRIVATE)


def _make_read_only(writable: Sequence[str], targets: Sequence[str], shown: Sequence[str]) -> None:
    for path in writable:
        _mount(path, path, None, MS_BIND | MS_REC)
    try:
        _set_read_only("/", True)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        return  # Linux before 5.12 cannot: the host is then protected by the other means alone
    # Deeper paths last: a change reaches everything below, such as a shown path below the group's own /tmp.
    states = {**dict.fromkeys(shown, True), **dict.fromkeys((*writable, *targets), False)}
    for path in sorted(states, key=lambda path: path.count("/")):
        _set_read_only(path, states[path])


def _set_read_only(path: str, read_only: bool) -> None:
    wanted = MountAttributes()
    setattr(wanted, "set" if read_only else "clear", MOUNT_ATTR_RDONLY)
    result = libc().syscall(
        SYS_MOUNT_SETATTR,
        AT_FDCWD,
        os.fsencode(path),
        AT_RECURSIVE,
        ctypes.byref(wanted),
        ctypes.sizeof(wanted),
    )
    check(result, f"make {path} {'read-only' if read_only else 'writable'}")


def _ensure_mount_point(target: str, ours: list[str], is_folder: bool) -> None:
    """Create a mount point without creating anything on the host's own file systems.

    `ours` are the places mounted already: creating a folder below one of them touches nothing else.
    """
    if os.path.exists(target):
        return
    parent = os.path.dirname(target)
    while not os.path.isdir(parent):
        parent = os.path.dirname(parent)
    if not any(parent == place or parent.startswith(place + "/") for place in ours):
        if parent == "/":
            raise FileNotFoundError(
                f"{target} cannot be made visible: {os.path.dirname(target)} does not exist here"
            )
        _mirror(parent)
    if is_folder:
        # Two machines of one group share its /tmp and may arrive here together.
        os.makedirs(target, exist_ok=True)
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o600))


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
