"""The HTTP server: cheroot with threads, keep-alive, streamed bodies and Expect: 100-continue."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import Any

from cheroot.server import ChunkedRFile
from cheroot.wsgi import Server

from local_aws.gateway.chunked import ChunkedBody
from local_aws.gateway.connection import Connection
from local_aws.gateway.responses import Environ, StartResponse, WsgiApp
from local_aws.settings import Settings, StartupError

logger = logging.getLogger(__name__)

THREADS = 48
"""Requests answered at once. Long polls (SQS) and invocations of slow models each hold one; idle connections
none.
"""
KEPT_CONNECTIONS = 512
"""Idle connections kept open; cheroot's own 10 would make most clients of a busy server reconnect each time."""
IDLE_SECONDS = 120
SHUTDOWN_SECONDS = 5
"""Time that requests in flight may delay the shutdown."""


class HttpServer:
    """A bound server; `serve` answers until another thread or a signal handler calls `stop`."""

    def __init__(self, settings: Settings) -> None:
        """Bind the address, so that the port is known before anything depends on it.

        Raises:
            StartupError: the address is in use or cannot be bound.
        """
        self._server = Server(
            (settings.host, settings.port),
            _starting,
            numthreads=THREADS,
            server_name="local_aws",
            timeout=IDLE_SECONDS,
            shutdown_timeout=SHUTDOWN_SECONDS,
            request_queue_size=256,
        )
        self._server.nodelay = True
        self._server.keep_alive_conn_limit = KEPT_CONNECTIONS
        self._server.ConnectionClass = Connection
        setattr(self._server, "error_log", _log_error)  # noqa: B010 - a method that cheroot lets one replace
        try:
            self._server.prepare()
        except OSError as error:
            raise StartupError(
                f"cannot listen on {settings.host}:{settings.port} ({error}): stop what uses the port, "
                "or choose another with --port (0 for any free one)"
            ) from error
        self.port: int = self._server.socket.getsockname()[1]

    def serve(self, app: WsgiApp) -> None:
        """Answer requests with `app` until stopped."""
        self._server.wsgi_app = _decoded(app)
        try:
            self._server.serve()
        except KeyboardInterrupt:
            logger.info("interrupted")

    def stop(self) -> None:
        """Finish the requests in flight and close."""
        self._server.stop()


def _decoded(app: WsgiApp) -> WsgiApp:
    """Return `app` with our reader of chunked bodies in place of cheroot's."""

    def answer(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        body = environ["wsgi.input"]
        if isinstance(body, ChunkedRFile):
            environ["wsgi.input"] = ChunkedBody(body.rfile)
        return app(environ, start_response)

    return answer


def _starting(_environ: Any, start_response: Any) -> list[bytes]:
    start_response("503 Service Unavailable", [("Content-Type", "text/plain"), ("Retry-After", "1")])
    return [b"local_aws is starting"]


def _log_error(message: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
    logger.log(level, "%s", message.strip(), exc_info=sys.exc_info() if traceback else None)
