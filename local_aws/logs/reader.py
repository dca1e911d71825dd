"""`local_aws logs`: print its own log, or the lines of a job or endpoint."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from local_aws.settings import StartupError
from local_aws.state.logs import Event, LogStore

FOLLOW_SECONDS = 0.3
TAIL_BYTES = 64 * 1024


def print_file(path: Path, follow: bool) -> int:
    """Print the end of the log file, and with `follow` new lines until interrupted."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise StartupError(
            f"{path} does not exist: local_aws was not started in the background there"
        ) from None
    with file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        try:
            while True:
                sys.stdout.write(file.read().decode("utf-8", "replace"))
                sys.stdout.flush()
                if not follow:
                    return 0
                time.sleep(FOLLOW_SECONDS)
        except KeyboardInterrupt:
            return 0


def print_job(state: Path, name: str, follow: bool) -> int:
    """Print the lines of all streams `<name>/...` (jobs) or group `.../<name>` (endpoints) of all regions."""
    path = state / "logs.sqlite"
    if not path.exists():
        raise StartupError(f"{state} holds no logs")
    store = LogStore(path)
    last = 0
    try:
        while True:
            events = store.search(name, after=last)
            for event in events:
                last = max(last, event.id)
                print(_line(event))
            if not events and not last:
                raise StartupError(f"there is no log of {name}")
            if not follow:
                return 0
            time.sleep(FOLLOW_SECONDS)
    except KeyboardInterrupt:
        return 0
    finally:
        store.close()


def _line(event: Event) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(event.timestamp / 1000))
    return f"{clock} {event.stream.rpartition('/')[2]} {event.message}"
