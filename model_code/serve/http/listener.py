"""The port of the server: accepts clients, and pauses when the process runs out of file descriptors."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable

from model_code.serve.http.poller import READ
from model_code.serve.http.reactor import Reactor
from model_code.serve.http.transport import Channel

_AT_ONCE = 64
"""Clients accepted in a row, while existing clients wait."""
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_BREAK = 1.0
"""Seconds before the next attempt: the poller would report the waiting client without end."""


class Listener:
    """A listening socket that several processes may share. Use under the reactor's lock."""

    def __init__(self, reactor: Reactor, port: socket.socket, connect: Callable[[Channel], None]) -> None:
        port.setblocking(False)
        self._reactor = reactor
        self._port = port
        self._connect = connect
        self._open = False
        self._resume: float | None = None
        """When to accept again; None while it does."""

    def open(self) -> None:
        """Accept clients from now on."""
        self._watch(True)

    def _watch(self, wanted: bool) -> None:
        if wanted != self._open:
            self._open = wanted
            self._reactor.watch(self._port.fileno(), READ * wanted, self._ready)

    def sweep(self) -> None:
        """Resume accepting after a pause."""
        if self._resume is not None and time.monotonic() >= self._resume:
            self._resume = None
            self.open()

    def close(self) -> None:
        """Accept the connections that are already complete, then close."""
        self._watch(False)
        while self._accept():
            pass
        self._resume = None
        self._port.close()

    def _ready(self, _: int) -> None:
        for _ in range(_AT_ONCE):
            if not self._accept():
                return

    def _accept(self) -> bool:
        try:
            client, _ = self._port.accept()
        except ConnectionAbortedError:
            return True  # it has left already
        except OSError as error:
            if error.errno in _EXHAUSTED:
                self._watch(False)
                self._resume = time.monotonic() + _BREAK
            return False
        self._connect(Channel(self._reactor, client))
        return True
