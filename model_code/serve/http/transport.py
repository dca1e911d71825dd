"""A client's non-blocking socket: data that cannot be sent at once is sent when there is room."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Protocol

from model_code.serve.http.poller import READ, WRITE
from model_code.serve.http.reactor import Reactor

_RECEIVE = 256 * 1024
_HIGH, _LOW = 64 * 1024, 16 * 1024
"""Unsent bytes above which the owner is asked to pause, and below which it resumes."""


class Owner(Protocol):
    """Receives the events of a channel. Every method is called under the reactor's lock."""

    def received(self, data: bytes) -> None:
        """Bytes came."""

    def ended(self) -> None:
        """The client has stopped sending, but may still read."""

    def full(self) -> None:
        """The buffer of unsent bytes is full."""

    def drained(self) -> None:
        """The buffer of unsent bytes has drained."""

    def lost(self) -> None:
        """The channel is closed, by either side. The last call."""


class Channel:
    """A connected socket, used under the reactor's lock. While its owner calls it, it calls back only `full`."""

    def __init__(self, reactor: Reactor, client: socket.socket) -> None:
        client.setblocking(False)
        with contextlib.suppress(OSError):  # no TCP, or the client is gone already
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reactor = reactor
        self._socket = client
        self._unsent = bytearray()
        self._full = False
        self._paused = self._ended = False
        self._closing = self._end_wanted = False
        self._closed = False
        self._watched = 0

    def open(self, owner: Owner) -> None:
        """Start reading."""
        self._owner = owner
        self._watch()

    @property
    def paused(self) -> bool:
        """True while reading is paused."""
        return self._paused

    def pause(self, paused: bool) -> None:
        """Pause reading, leaving data in the kernel's buffer, or resume."""
        self._paused = paused
        self._watch()

    def write(self, data: bytes) -> None:
        """Send, now or as soon as there is room."""
        if self._closed:
            return
        if self._unsent:
            self._unsent += data
        else:
            sent = self._send(data)
            if sent == len(data) or self._closed:
                return
            self._unsent += memoryview(data)[sent:]
        if len(self._unsent) > _HIGH and not self._full:
            self._full = True
            self._owner.full()
        self._watch()

    def later(self, action: Callable[[], None]) -> None:
        """Call `action` after other connections have had their turn."""
        self._reactor.later(action)

    def end(self) -> None:
        """Send what has been written, then shut down the sending side; keep reading."""
        self._end_wanted = True
        self._finish()

    def close(self) -> None:
        """Stop reading; close once everything is sent."""
        self._closing = True
        self._finish()
        self._watch()

    def abort(self) -> None:
        """Close now and drop unsent data."""
        if self._closed:
            return
        self._closed = True
        self._watch()
        self._socket.close()
        self._unsent.clear()
        self._reactor.defer(self._owner.lost)

    # -- the reactor's calls -----------------------------------------------------------------------------------------

    def _ready(self, events: int) -> None:
        if events & WRITE and self._unsent:  # another thread that listens may have been here before
            del self._unsent[: self._send(self._unsent)]
            if self._full and len(self._unsent) <= _LOW:
                self._full = False
                self._reactor.defer(self._owner.drained)
            self._finish()
            self._watch()
        if events & READ and self._reads:
            self._receive()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(_RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            self.abort()
            return
        self._ended = not data
        try:
            if data:
                self._owner.received(data)
            else:
                self._watch()
                self._owner.ended()
        except Exception:  # its owner may be in any state; other connections must not be affected
            self.abort()
            raise

    # -- inside ------------------------------------------------------------------------------------------------------

    @property
    def _reads(self) -> bool:
        return not (self._closed or self._closing or self._ended or self._paused)

    def _send(self, data: bytes | bytearray) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self.abort()
            return 0

    def _finish(self) -> None:
        """Complete a pending close or shutdown once everything is sent."""
        if self._unsent or self._closed:
            return
        if self._closing:
            self.abort()
        elif self._end_wanted:
            self._end_wanted = False
            with contextlib.suppress(OSError):  # the client has closed it already
                self._socket.shutdown(socket.SHUT_WR)

    def _watch(self) -> None:
        wanted = READ * self._reads | WRITE * (bool(self._unsent) and not self._closed)
        if wanted != self._watched:
            self._watched = wanted
            self._reactor.watch(self._socket.fileno(), wanted, self._ready)
