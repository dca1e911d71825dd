"""The isolation of jobs, endpoints, transforms and instances: what each of them sees of the machine."""

from __future__ import annotations

import enum
import functools
import json
import os
import pwd
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

JOB_USER = 0x70000000
"""The host user that the root of a job's user namespace is; outside every range that distributions hand out."""
JOB_USERS = 65_536
TEMPORARY = ("/tmp", "/var/tmp")
RUN_FOLDERS = ("/run", "/var/run")
RESOLVER = "/run/systemd/resolve"
"""systemd's /etc/resolv.conf leads here; without it a job cannot resolve names."""


class Support(enum.Enum):
    """The isolation that this platform allows; the value says it to a person."""

    OWN_USERS = "each has its own files, processes and users"
    OWN_FILES = "each has its own files and processes"
    OTHER_USER = (
        "no mount namespaces here: they run as another user and see the machine's files and processes"
    )
    NONE = "no mount namespaces here: they run with the rights of local_aws"


@dataclass(frozen=True)
class Isolation:
    """A group's view of the machine, where the platform has mount namespaces; elsewhere it sees everything.

    Attributes:
        hosts: Host name -> address, added to /etc/hosts.
        hidden: Folders that appear empty, except for what `binds` and `shown` put there.
        writable: When given, everything but these paths, `private` and the binds is read-only.
        drop_privileges: No privilege on the host, and no process visible but the group's own.
        binds: Target -> source: folders that the group owns and can write.
        shown: Paths that keep their place under a bind or a hidden folder; read-only where `writable` is given.
        private: Folders that are an empty tmpfs of the group's own, where they exist.
        given: Further paths that the group's user must own, to read them.
    """

    hosts: Mapping[str, str] = field(default_factory=dict)
    hidden: Sequence[Path] = ()
    writable: Sequence[Path] | None = None
    drop_privileges: bool = False
    binds: Mapping[str, Path] = field(default_factory=dict)
    shown: Sequence[Path] = ()
    private: Sequence[Path] = ()
    given: Sequence[Path] = ()

    def __post_init__(self) -> None:
        for path in (*self.hidden, *self.shown, *self.private, *(self.writable or ())):
            if not path.is_absolute():
                raise ValueError(f"Isolation needs absolute paths, not {path}")


def confined(
    state: Path,
    tmp: Path,
    *,
    interpreter: str = sys.executable,
    hosts: Mapping[str, str] | None = None,
    binds: Mapping[str, Path] | None = None,
    shown: Sequence[Path] = (),
) -> Isolation:
    """Build the isolation of anything that runs a client's code.

    The machine is read-only; the state folder, home folders and /run are hidden; /tmp, /var/tmp and /dev/shm are the
    group's own.

    Args:
        state: The state folder of local_aws.
        tmp: A folder of the group that becomes its /tmp.
        interpreter: The python whose installation stays visible.
        hosts: Host name -> address, added to /etc/hosts.
        binds: Target -> source: further folders of the group.
        shown: Further paths of the group that it can only read.
    """
    hidden = [state, *home_folders(), *(Path(path) for path in RUN_FOLDERS if is_own_folder(path))]
    covered = [*hidden, *map(Path, TEMPORARY)]
    roots = [
        path for path in python_roots(interpreter) if any(path.is_relative_to(folder) for folder in covered)
    ]
    resolver = [Path(RESOLVER)] if os.path.isdir(RESOLVER) else []
    return Isolation(
        hosts=hosts or {},
        hidden=hidden,
        writable=(),
        drop_privileges=True,
        binds={**{path: tmp for path in TEMPORARY if is_own_folder(path)}, **(binds or {})},
        shown=[*roots, *resolver, *shown],
        private=[Path("/dev/shm")],
        given=shown,
    )


def is_own_folder(path: str) -> bool:
    """Return True for a folder that is not a link to another."""
    return os.path.isdir(path) and not os.path.islink(path)


def home_folders() -> list[Path]:
    """Return the folders that hold users' files: /home, /root and the home of this user."""
    own = {os.environ.get("HOME", ""), pwd.getpwuid(os.getuid()).pw_dir if _has_entry() else ""}
    candidates = {"/home", "/root", *own} - {"", "/", *TEMPORARY}
    return [Path(path) for path in sorted(candidates) if path.startswith("/") and is_own_folder(path)]


@functools.cache
def python_roots(interpreter: str) -> tuple[Path, ...]:
    """Return the paths that a python needs: its installation and the packages installed in place.

    Of a project installed in place only its packages are returned, not the folder around them, which may hold secrets.
    Empty for a program that is not python.
    """
    script = (
        "import json, sys; roots = [sys.prefix, sys.base_prefix, sys.exec_prefix]; "
        "places = {p for f in sys.meta_path for p in getattr(sys.modules.get(getattr(f, '__module__', '')), "
        "'MAPPING', {}).values()}; print(json.dumps([roots, sys.path, sorted(places)]))"
    )
    try:
        found = subprocess.run(
            [interpreter, "-I", "-c", script], capture_output=True, text=True, timeout=60, check=True
        )
        prefixes, entries, places = json.loads(found.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return (Path(interpreter),)
    roots = {Path(prefix) for prefix in prefixes} | {Path(place) for place in places}
    for entry in map(Path, entries):
        if entry.is_dir() and not any(entry.is_relative_to(prefix) for prefix in prefixes):
            roots |= {
                path for path in entry.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
            }
    return tuple(sorted(path for path in roots if path.exists()))


def identity() -> tuple[int, int] | None:
    """Return (first host user, number of users) for a job's user namespace; None where there is none to give.

    A container may have few users itself: then those above its root are used.
    """
    try:
        ranges = [
            list(map(int, line.split())) for line in Path("/proc/self/uid_map").read_text().splitlines()
        ]
    except (OSError, ValueError):
        return None
    if os.geteuid() != 0 or not ranges:
        return None
    end = max(inside + count for inside, _, count in ranges)
    if end >= JOB_USER + JOB_USERS:
        return JOB_USER, JOB_USERS
    return (1, end - 1) if len(ranges) == 1 and end > 1 else None


def _has_entry() -> bool:
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return True
