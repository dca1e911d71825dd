"""One local_aws process: its state folder, lock, files, life and end."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from local_aws import images, services
from local_aws.app import Router
from local_aws.capacity import Capacity
from local_aws.context import Context
from local_aws.log_store import LogStore
from local_aws.processes import end_orphans
from local_aws.sagemaker.operations import status_member
from local_aws.server import HttpServer
from local_aws.settings import Settings, StartupError
from local_aws.store import Store

logger = logging.getLogger(__name__)

LOCK, PID, PORT, LOG = "lock", "pid", "port", "local_aws.log"


def prepare_state(state: Path) -> None:
    """Make the state folder. Raises StartupError when it cannot be one."""
    try:
        state.mkdir(parents=True, exist_ok=True)
        probe = state / ".writable"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise StartupError(
            f"state folder {state} cannot be used ({error}): choose another with --state"
        ) from error


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """Hold the state folder's lock; the kernel lets go of it however the process ends. Raises
    StartupError.
    """
    with (state / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartupError(
                f"a local_aws already runs on {state} "
                f"(pid {read_number(state / PID)}, port {read_number(state / PORT)}): stop it with: python -m local_aws stop --state {state}"
            ) from None
        yield


def is_locked(state: Path) -> bool:
    """Whether a local_aws runs on that state folder."""
    try:
        with (state / LOCK).open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def read_number(path: Path) -> int | None:
    """The number in a pid or port file; None when there is none."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def run(settings: Settings) -> None:
    """Be local_aws until SIGTERM or SIGINT. Raises StartupError before anything is served."""
    prepare_state(settings.state)
    with locked(settings.state):
        server = HttpServer(settings)
        known_images = images.load(settings.images)
        store = Store(settings.state / "metadata.sqlite", status_member)
        logs = LogStore(settings.state / "logs.sqlite")
        url = f"http://{settings.host}:{server.port}"
        context = Context(settings, url, store, known_images, Capacity(settings.cores), logs)
        ended = end_orphans(context.records)
        if ended:
            logger.warning("ended what an earlier local_aws left running: %s", ", ".join(ended))
        router = services.build(context)
        try:
            _serve(settings, server, router, context)
        finally:
            for name in (PID, PORT):
                (settings.state / name).unlink(missing_ok=True)
            logs.close()
            store.close()


def _serve(settings: Settings, server: HttpServer, router: Router, context: Context) -> None:
    done = threading.Event()

    def end(number: int, _frame: FrameType | None) -> None:
        logger.info("ending: %s", signal.Signals(number).name)
        context.stopping.set()
        done.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    thread = threading.Thread(target=server.serve, args=(router,), name="http", daemon=True)
    thread.start()
    # Services call back through HTTP while they recover, so the server already answers here.
    router.start()
    (settings.state / PID).write_text(str(os.getpid()))
    _replace(settings.state / PORT, str(server.port))
    logger.info("listening on %s, %d cores, state in %s", context.url, settings.cores, settings.state)
    done.wait()
    router.stop()
    server.stop()
    thread.join(timeout=10)
    # What a service did not end itself must not outlive us.
    end_orphans(context.records)


def _replace(path: Path, text: str) -> None:
    """Write a file that readers see whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(path)
