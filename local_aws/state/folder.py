"""The state folder from outside: lock, pid, port, url, token and log files. Light to import, for the CLI."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local_aws.settings import StartupError

LOCK, PID, PORT, URL, LOG, TOKEN = "lock", "pid", "port", "url", "local_aws.log", "token"
CREDENTIALS = "credentials"
"""The account's own access key, in the format of AWS_SHARED_CREDENTIALS_FILE."""
LEAST_FREE_BYTES = 64 * 2**20
"""Below this a start is refused: it would end in the middle, without room for a message in its log."""


def prepare_state(state: Path) -> None:
    """Create the state folder, readable by its owner only.

    Raises:
        StartupError: the folder cannot be used, or its disk is full.
    """
    try:
        state.mkdir(parents=True, exist_ok=True)
        state.chmod(0o700)
        probe = state / ".writable"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise StartupError(
            f"state folder {state} cannot be used ({error}): choose another with --state"
        ) from error
    free = shutil.disk_usage(state).free
    if free < LEAST_FREE_BYTES:
        raise StartupError(
            f"state folder {state} has {free / 2**20:.0f} MB of disk left, and local_aws needs "
            f"{LEAST_FREE_BYTES // 2**20}: free some, or choose another with --state"
        )


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """Hold the state folder's lock; the kernel releases it however the process ends.

    Raises:
        StartupError: another local_aws holds it.
    """
    with (state / LOCK).open("w") as file:
        os.fchmod(file.fileno(), 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartupError(
                f"a local_aws already runs on {state} "
                f"(pid {read_number(state / PID)}, port {read_number(state / PORT)}): "
                f"stop it with: python -m local_aws stop --state {state}"
            ) from None
        yield


def is_locked(state: Path) -> bool:
    """Return True if a local_aws is running on the state folder."""
    try:
        with (state / LOCK).open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def forget(state: Path) -> None:
    """Remove pid, port and url of the previous holder of the lock: others may use them now."""
    for name in (PID, PORT, URL, TOKEN):
        (state / name).unlink(missing_ok=True)


def read_text(path: Path) -> str:
    """Read a small file; "" when it is absent."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def read_number(path: Path) -> int | None:
    """Read a pid or port file; None when it is absent."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def replace(path: Path, text: str) -> None:
    """Write a file of mode 0600 that readers see completely or not at all."""
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    partial.replace(path)
