"""HTTP/1.1 on one connection: parsing, limits, keep-alive, pipelining, half-closed and slow peers, draining.

httptools (llhttp) parses; this module decides what a client may cost. Requests of one connection are answered
one after another in order; while one is worked on, nothing more is read from that connection.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, cast

import httptools

from model_code.serve.messages import HttpError, Request, Response, busy
from model_code.serve.settings import Limits

_LINGER = 2.0
"""Seconds during which the rest of a refused request is read and thrown away, so that the peer gets to read
the refusal instead of a connection reset (RFC 9112, section 9.6).
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
        """Send the answer; on the event loop's thread, once. Does nothing when the client is gone."""
        if not self.cancelled:
            self._connection.answer(self, response)


class Application(Protocol):
    """What the protocol hands requests to."""

    def handle(self, exchange: Exchange) -> None:
        """Answer `exchange` now or later. Must not raise."""

    def answered(self, exchange: Exchange, response: Response, bytes_sent: int) -> None:
        """An answer was written (access log, metrics)."""

    def refused(self, error: HttpError) -> None:
        """A request was turned away before it was complete."""


@dataclass
class Server:
    """What the connections of one process share."""

    application: Application
    limits: Limits
    connections: set[Connection] = field(default_factory=set)
    buffered: int = 0
    draining: bool = False

    def connection(self) -> Connection:
        """A protocol for a new connection."""
        return Connection(self)

    def sweep(self) -> None:
        """Close what ran out of time. Called a few times a second: cheaper than a timer per request."""
        now = time.monotonic()
        for connection in tuple(self.connections):
            connection.check_deadline(now)

    def drain(self) -> None:
        """Finish what has begun, accept no further request, close idle connections."""
        self.draining = True
        for connection in tuple(self.connections):
            connection.close_if_idle()


class Connection(asyncio.Protocol):
    """One client connection."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._limits = server.limits
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Request] = deque()
        self._current: Exchange | None = None
        self._deadline = time.monotonic() + self._limits.head_timeout
        self._refusal: HttpError | None = None
        self._closing = False
        self._half_closed = False
        self._writable = True
        self._receiving = False
        self._in_head = True
        self._idle = True
        self._answering = False
        self._begin()

    def _begin(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._header_count = 0
        self._head_bytes = 0
        self._head_received = 0
        self._body: list[bytes] = []
        self._body_bytes = 0

    # -- asyncio.Protocol --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)
        self._server.connections.add(self)
        excess = len(self._server.connections) - self._limits.connections
        if excess > self._limits.connections:
            transport.abort()
        elif excess > 0:
            self._refuse(busy("too many connections"))

    def connection_lost(self, error: Exception | None) -> None:
        self._server.connections.discard(self)
        self._transport = None
        self._release_body()
        if self._current is not None:
            self._current.cancelled = True
            self._current = None
        self._server.buffered -= sum(len(request.body) for request in self._waiting)
        self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        if self._closing or self._refusal is not None:
            return
        if self._current is not None and self._transport is not None:
            # Only a pipelining client gets here: let it wait in the kernel's buffer, not in ours.
            self._transport.pause_reading()
        if self._idle:
            self._idle = False
            self._deadline = time.monotonic() + self._limits.head_timeout
        try:
            self._parser.feed_data(data)
            self._check_head(len(data))
        except HttpError as error:
            self._refuse(error)
        except httptools.HttpParserUpgrade:
            pass  # the request itself is complete and gets its answer, after which the connection closes
        except httptools.HttpParserCallbackError as wrapped:
            cause = wrapped.__context__
            self._refuse(cause if isinstance(cause, HttpError) else _malformed(wrapped))
        except httptools.HttpParserError as error:
            self._refuse(_malformed(error))

    def eof_received(self) -> bool:
        self._half_closed = True
        if self._closing:
            return False
        if self._receiving:
            self._refuse(
                HttpError(400, "incomplete", "the connection was closed before the request was complete")
            )
        # A client may close its sending side and still read: keep the connection until it has its answers.
        return self._current is not None or bool(self._waiting) or self._closing

    def pause_writing(self) -> None:
        self._writable = False
        self._deadline = time.monotonic() + self._limits.write_timeout

    def resume_writing(self) -> None:
        self._writable = True
        self._next()

    # -- httptools callbacks -----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._begin()
        self._receiving = self._in_head = True

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count_head(len(url), 414, "the URL is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_count += 1
        self._count_head(len(name) + len(value), 431, f"more than {self._limits.head} bytes of headers")
        if self._header_count > self._limits.headers:
            raise HttpError(431, "headers", f"more than {self._limits.headers} headers")
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._parser.get_http_version() not in ("1.0", "1.1"):
            raise HttpError(505, "version", "this server speaks HTTP/1.1")
        length = self._headers.get("content-length", "")
        declared = int(length) if length.isdecimal() else 0
        self._check_body(declared)
        if self._headers.get("expect", "").lower() == "100-continue" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self._current is None:
            self._deadline = time.monotonic() + self._limits.body_timeout

    def on_body(self, data: bytes) -> None:
        self._check_body(self._body_bytes + len(data))
        if self._server.buffered + len(data) > self._limits.buffered:
            raise busy("too many bytes are waiting in this server")
        self._body.append(data)
        self._body_bytes += len(data)
        self._server.buffered += len(data)

    def on_message_complete(self) -> None:
        self._receiving = False
        path, _, query = self._url.partition(b"?")
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._waiting.append(
            Request(
                self._parser.get_method().decode("latin-1"),
                path.decode("latin-1"),
                query.decode("latin-1"),
                self._headers,
                body,
                self._parser.should_keep_alive() and not self._parser.should_upgrade(),
            )
        )
        self._body, self._body_bytes = [], 0
        self._next()

    # -- requests and answers ----------------------------------------------------------------------------------------

    def _next(self) -> None:
        """Start on the complete requests, in order, until one has to be waited for."""
        if self._answering:
            return
        self._answering = True
        while self._waiting and self._may_start():
            self._current = exchange = Exchange(self, self._waiting.popleft())
            self._deadline = math.inf
            self._server.application.handle(exchange)
        self._answering = False
        if self._may_start():
            self._rest()

    def _may_start(self) -> bool:
        return self._current is None and self._transport is not None and self._writable and not self._closing

    def answer(self, exchange: Exchange, response: Response) -> None:
        """Write the answer to `exchange` and go on with the next request."""
        transport, request = self._transport, exchange.request
        if transport is None or exchange is not self._current:
            return
        self._current = None
        self._server.buffered -= len(request.body)
        last = self._half_closed and not self._waiting
        keep = request.keep_alive and not self._server.draining and not last
        payload = response.encode(keep, with_body=request.method != "HEAD")
        transport.write(payload)
        self._server.application.answered(exchange, response, len(payload))
        if keep:
            self._next()
        else:
            self._close()

    def _rest(self) -> None:
        """Nothing to answer: wait for the rest of a request, or for the next one."""
        assert self._transport is not None
        if self._refusal is not None:
            self._refuse(self._refusal)
        elif self._half_closed or (self._server.draining and not self._receiving):
            self._close()
        else:
            now = time.monotonic()
            self._idle = not self._receiving
            self._deadline = now + (self._limits.idle_timeout if self._idle else self._limits.body_timeout)
            if not self._transport.is_reading():
                self._transport.resume_reading()

    def _refuse(self, error: HttpError) -> None:
        """Answer with an error, after the requests before it, and close, whatever the client still sends."""
        self._release_body()
        self._receiving = False
        self._refusal = error
        transport = self._transport
        if transport is None or self._current is not None or self._waiting:
            return
        self._server.application.refused(error)
        transport.write(error.response().encode(keep_alive=False))
        if self._half_closed or not transport.can_write_eof():
            self._close()
            return
        self._closing = True
        self._deadline = time.monotonic() + _LINGER
        transport.write_eof()
        if not transport.is_reading():
            transport.resume_reading()

    def _close(self) -> None:
        """Close once everything is written, or when the write time-out is over."""
        assert self._transport is not None
        self._closing = True
        self._deadline = time.monotonic() + self._limits.write_timeout
        self._transport.close()

    def _release_body(self) -> None:
        self._server.buffered -= self._body_bytes
        self._body, self._body_bytes = [], 0

    def _check_body(self, size: int) -> None:
        if size > self._limits.body:
            limit = self._limits.body >> 20
            raise HttpError(
                413, "body_too_large", f"the body is larger than {limit} MiB: send fewer or smaller photos"
            )

    def _check_head(self, received: int) -> None:
        """llhttp keeps an unfinished header line however long it grows, so unfinished heads are counted here."""
        if self._in_head:
            self._head_received += received
            if self._head_received > 2 * self._limits.head:
                raise HttpError(431, "headers", f"more than {self._limits.head} bytes of headers")

    def _count_head(self, size: int, status: int, message: str) -> None:
        self._head_bytes += size
        if self._head_bytes > self._limits.head:
            raise HttpError(status, "headers", message)

    # -- time --------------------------------------------------------------------------------------------------------

    def check_deadline(self, now: float) -> None:
        """Close the connection, with 408 where a request was begun, when its time is over."""
        if now < self._deadline or self._transport is None:
            return
        if self._closing or not self._writable:
            self._transport.abort()
        elif self._idle:
            self._close()
        else:
            self._refuse(HttpError(408, "timeout", "the request did not arrive in time"))

    def close_if_idle(self) -> None:
        """For draining: close unless a request is being received or answered."""
        if self._may_start() and self._idle:
            self._close()


def _malformed(error: Exception) -> HttpError:
    first = (str(error).splitlines() or ["malformed"])[0]
    return HttpError(400, "malformed", f"not a valid HTTP request: {first[:120]}")


def ticker(loop: asyncio.AbstractEventLoop, seconds: float, action: Callable[[], None]) -> None:
    """Call `action` every `seconds` for as long as the loop runs."""

    def tick() -> None:
        action()
        loop.call_later(seconds, tick)

    loop.call_later(seconds, tick)
