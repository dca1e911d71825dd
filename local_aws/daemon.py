"""Run one local_aws process: its state folder, lock, files, start and shutdown."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import threading
from contextlib import ExitStack
from types import FrameType

from local_aws import services
from local_aws.context import ANY_KEY, Context
from local_aws.execution import images
from local_aws.execution.capacity import Capacity
from local_aws.execution.processes import end_orphans, support
from local_aws.gateway.router import Router
from local_aws.gateway.server import HttpServer
from local_aws.iam.credentials import root_key
from local_aws.sagemaker.operations import status_member
from local_aws.settings import DEFAULT_HOST, EVERY_ADDRESS, Settings
from local_aws.state.folder import PID, PORT, TOKEN, URL, forget, locked, prepare_state, replace
from local_aws.state.logs import LogStore
from local_aws.state.resources import Store

logger = logging.getLogger(__name__)


def run(settings: Settings) -> None:
    """Run local_aws until SIGTERM or SIGINT.

    Raises:
        StartupError: before anything is served.
    """
    os.umask(0o077)
    prepare_state(settings.state)
    with ExitStack() as open_things:
        open_things.enter_context(locked(settings.state))
        forget(settings.state)
        open_things.callback(forget, settings.state)
        replace(settings.state / PID, str(os.getpid()))
        token = secrets.token_urlsafe(32)
        replace(settings.state / TOKEN, token)
        known_images = images.load(settings.images)
        store = Store(settings.state / "metadata.sqlite", status_member)
        open_things.callback(store.close)
        logs = LogStore(settings.state / "logs.sqlite")
        open_things.callback(logs.close)
        server = HttpServer(settings)
        open_things.callback(server.stop)
        # Jobs and the CLI are on this machine, whatever else may reach it.
        host = DEFAULT_HOST if settings.host in EVERY_ADDRESS else settings.host
        url = f"http://[{host}]:{server.port}" if ":" in host else f"http://{host}:{server.port}"
        key = root_key(settings.state, os.environ) if settings.verifies else ANY_KEY
        context = Context(settings, url, store, known_images, Capacity(settings.cores), logs, key)
        ended = end_orphans(context.records)
        if ended:
            logger.warning("ended what an earlier local_aws left running: %s", ", ".join(ended))
        _serve(settings, server, services.build(context, token), context)


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
    # Services call back through HTTP while they recover: the server already answers these calls here.
    router.start()
    replace(settings.state / URL, context.url)
    replace(settings.state / PORT, str(server.port))
    logger.info("listening on %s, %d cores, state in %s", context.url, settings.cores, settings.state)
    logger.info("jobs, endpoints and instances: %s", support().value)
    logger.info("signatures are %s", "verified" if settings.verifies else "not verified: any credentials do")
    done.wait()
    router.stop()
    server.stop()
    thread.join(timeout=10)
    # What a service did not end itself must not outlive us.
    end_orphans(context.records)
