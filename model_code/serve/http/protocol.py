"""HTTP/1.1 on one connection: keep-alive, pipelining, half-closed and slow peers, draining.

`parser` parses; this module decides when a request may start and how long a client may take. Requests of one
connection are answered in order, one at a time; while one is being answered, nothing more is read from that
connection.
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from model_code.serve.http.limits import Limits
from model_code.serve.http.messages import CLIENT_GONE, HttpError, Request, Response, busy
from model_code.serve.http.parser import Budget, RequestReader
from model_code.serve.http.transport import Channel

_LINGER = 2.0
"""Seconds during which the rest of a refused request is read and discarded, so that the peer reads the refusal
instead of a connection reset (RFC 9112, section 9.6).
"""


class Exchange:
    """One request waiting for its answer."""

    __slots__ = ("_connection", "cancelled", "request", "started")

    def __init__(self, connection: Connection, request: Request) -> None:
        self._connection = connection
        self.request = request
        self.cancelled = False
        self.started = time.perf_counter()

    def reply(self, response: Response) -> None:
        """Send the answer, or only account for it if the client is gone. Call once."""
        self._connection.answer(self, response)


class Application(Protocol):
    """Receives the requests of the protocol."""

    def handle(self, exchange: Exchange) -> None:
        """Answer `exchange` now or later. Must not raise."""

    def answered(self, exchange: Exchange, response: Response, bytes_sent: int) -> None:
        """An answer was written (access log, metrics)."""

    def refused(self, error: HttpError) -> None:
        """A request was turned away before it was complete."""


@dataclass
class Server:
    """State shared by the connections of one process."""

    application: Application
    limits: Limits
    connections: set[Connection] = field(default_factory=set)
    draining: bool = False

    def __post_init__(self) -> None:
        self.budget = Budget(self.limits.buffered)

    def connect(self, channel: Channel) -> None:
        """Serve a new client."""
        Connection(self, channel).begin()

    def sweep(self) -> None:
        """Close connections past their deadline. Called a few times a second: cheaper than a timer per request."""
        now = time.monotonic()
        for connection in tuple(self.connections):
            connection.check_deadline(now)

    def drain(self) -> None:
        """Finish running requests, accept no further ones, close idle connections."""
        self.draining = True
        for connection in tuple(self.connections):
            connection.close_if_idle()


class Connection:
    """One client connection, the owner of a channel."""

    def __init__(self, server: Server, channel: Channel) -> None:
        self._server = server
        self._limits = server.limits
        self._channel = channel
        self._lost = False
        self._reader = RequestReader(self._limits, server.budget, self._head_arrived, self._arrived)
        self._waiting: deque[Request] = deque()
        self._unparsed = b""
        self._resuming = False
        self._current: Exchange | None = None
        self._deadline = time.monotonic() + self._limits.head_timeout
        self._refusal: HttpError | None = None
        self._closing = False
        self._half_closed = False
        self._writable = True
        self._idle = True
        self._answering = False

    def begin(self) -> None:
        """Read from the client, unless there are too many connections."""
        self._server.connections.add(self)
        self._channel.open(self)
        excess = len(self._server.connections) - self._limits.connections
        if excess > self._limits.connections:
            self._channel.abort()
        elif excess > 0:
            self._refuse(busy("too many connections"))

    # -- channel.Owner -----------------------------------------------------------------------------------------------

    def lost(self) -> None:
        """See `Owner`."""
        self._server.connections.discard(self)
        self._lost = True
        self._reader.discard()
        if self._current is not None:
            # A worker still holds its photo: the answer releases its bytes.
            self._current.cancelled = True
            self._current = None
        self._server.budget.give_back(sum(request.held for request in self._waiting))
        self._waiting.clear()
        self._unparsed = b""

    def received(self, data: bytes) -> None:
        """See `Owner`."""
        if self._closing or self._refusal is not None:
            return
        if self._idle:
            self._idle = False
            self._deadline = time.monotonic() + self._limits.head_timeout
        self._unparsed += data
        self._parse()
        if self._waiting or self._unparsed:
            self._next()

    def _parse(self) -> None:
        """Parse until a request is complete, and leave the rest for a later turn."""
        data = memoryview(self._unparsed)
        try:
            while data and self._may_start() and not self._waiting:
                piece = data[: self._reader.next_piece(data)]
                data = data[len(piece) :]
                self._reader.feed(piece)
        except HttpError as error:
            self._refuse(error)
            return
        self._unparsed = bytes(data)
        if self._unparsed:
            # Only a pipelining client gets here: let it wait in the kernel's buffer, not in ours.
            self._channel.pause(True)

    def ended(self) -> None:
        """See `Owner`."""
        self._half_closed = True
        if self._closing:
            self._channel.close()
        elif self._reader.receiving:
            self._refuse(
                HttpError(400, "incomplete", "the connection was closed before the request was complete")
            )
        elif self._current is None and not self._waiting and not self._unparsed:
            self._close()
        # A client may close its sending side and still read: keep the connection until it has its answers.

    def full(self) -> None:
        """See `Owner`."""
        self._writable = False
        self._deadline = time.monotonic() + self._limits.write_timeout

    def drained(self) -> None:
        """See `Owner`."""
        self._writable = True
        self._next()

    # -- the reader's callbacks --------------------------------------------------------------------------------------

    def _head_arrived(self) -> None:
        if self._current is None:
            self._deadline = time.monotonic() + self._limits.body_timeout
            self._invite()

    def _arrived(self, request: Request) -> None:
        self._waiting.append(request)

    def _invite(self) -> None:
        """Ask for the body that the client holds back (100 Continue), after the answers to earlier requests."""
        if self._reader.expects_continue and not self._waiting:
            self._reader.expects_continue = False
            self._channel.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # -- requests and answers ----------------------------------------------------------------------------------------

    def _next(self) -> None:
        """Start the next complete request; if it is answered at once, go on after others have had their turn."""
        if self._answering:
            return
        if self._waiting and self._may_start():
            self._answering = True
            self._current = exchange = Exchange(self, self._waiting.popleft())
            self._deadline = math.inf
            self._server.application.handle(exchange)
            self._answering = False
        if not self._may_start():
            return
        if not (self._waiting or self._unparsed) or self._refusal is not None:
            self._rest()
        elif not self._resuming:
            self._resuming = True
            self._channel.later(self._resume)

    def _resume(self) -> None:
        self._resuming = False
        if self._may_start() and self._refusal is None and not self._waiting:
            self._parse()
        if not self._lost:
            self._next()

    def _may_start(self) -> bool:
        return self._current is None and self._writable and not (self._closing or self._lost)

    def answer(self, exchange: Exchange, response: Response) -> None:
        """Write the answer to `exchange` and start the next request."""
        request = exchange.request
        self._server.budget.give_back(request.held)
        if self._lost or exchange is not self._current:
            self._server.application.answered(exchange, CLIENT_GONE, 0)
            return
        self._current = None
        last = self._half_closed and not (self._waiting or self._unparsed)
        keep = request.keep_alive and not self._server.draining and not last
        payload = response.encode(keep, with_body=request.method != "HEAD")
        self._channel.write(payload)
        self._server.application.answered(exchange, response, len(payload))
        if keep:
            self._next()
        else:
            self._close()

    def _rest(self) -> None:
        """Wait for the rest of a request, or for the next one."""
        if self._refusal is not None:
            self._refuse(self._refusal)
        elif self._half_closed or (self._server.draining and not self._reader.receiving):
            self._close()
        else:
            now = time.monotonic()
            self._idle = not self._reader.receiving
            self._invite()
            self._deadline = now + (self._limits.idle_timeout if self._idle else self._limits.body_timeout)
            if self._channel.paused:
                self._channel.pause(False)

    def _refuse(self, error: HttpError) -> None:
        """Answer with an error after earlier requests, then close, ignoring further input."""
        self._reader.discard()
        self._unparsed = b""
        self._refusal = error
        if self._lost or self._current is not None or self._waiting:
            return
        self._server.application.refused(error)
        self._channel.write(error.response().encode(keep_alive=False))
        if self._half_closed:
            self._close()
            return
        self._closing = True
        self._deadline = time.monotonic() + _LINGER
        self._channel.end()
        if self._channel.paused:
            self._channel.pause(False)

    def _close(self) -> None:
        """Close once everything is written, or when the write time-out is over."""
        self._closing = True
        self._deadline = time.monotonic() + self._limits.write_timeout
        self._channel.close()

    # -- time --------------------------------------------------------------------------------------------------------

    def check_deadline(self, now: float) -> None:
        """Close a connection whose deadline has passed, with 408 if a request had started."""
        if now < self._deadline or self._lost:
            return
        if self._closing or not self._writable:
            self._channel.abort()
        elif self._idle:
            self._close()
        else:
            self._refuse(HttpError(408, "timeout", "the request did not arrive in time"))

    def close_if_idle(self) -> None:
        """For draining: close unless a request is being received or answered."""
        if self._may_start() and self._idle:
            self._close()
