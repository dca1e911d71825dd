"""Parses the bytes of one connection into complete requests, within limits.

httptools (llhttp) parses; this module bounds the data that httptools buffers without limit.
"""

from __future__ import annotations

from collections.abc import Callable

import httptools

from model_code.process.errors import first_line
from model_code.serve.http.limits import Limits
from model_code.serve.http.messages import HttpError, Request, busy

_CHUNKED_PIECE = 64 * 1024


class Budget:
    """Bytes of requests that a process holds, over all its connections."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.held = 0

    def take(self, size: int) -> None:
        """Hold more.

        Raises:
            HttpError: 503, the process is at its limit.
        """
        if self.held + size > self._most:
            raise busy("too many bytes are waiting in this server")
        self.held += size

    def give_back(self, size: int) -> None:
        """Hold less."""
        self.held -= size


class RequestReader:
    """Reads the requests of one connection; its public state is that of the request being received."""

    def __init__(
        self,
        limits: Limits,
        budget: Budget,
        on_head: Callable[[], None],
        on_request: Callable[[Request], None],
    ) -> None:
        """Call `on_head` after the headers of each request, `on_request` when its body is there too.

        A request counts in `budget` until its receiver gives back the bytes `held`.
        """
        self._limits = limits
        self._budget = budget
        self._on_head = on_head
        self._on_request = on_request
        self._parser = httptools.HttpRequestParser(self)
        self._in_head = True
        self._progress = 0
        """Heads begun and pieces of bodies received."""
        self._unfinished_bytes = 0
        self._begin()
        self.receiving = False

    def _begin(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._header_count = 0
        self._head_bytes = 0
        self._body: bytes | bytearray = b""
        self.expects_continue = False

    def feed(self, data: bytes | memoryview) -> None:
        """Parse what was received.

        Raises:
            HttpError: 4xx, 503 or 505; nothing more can be read from this connection.
        """
        progress = self._progress
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # the request itself is complete and is answered before the connection closes
        except httptools.HttpParserCallbackError as wrapped:
            cause = wrapped.__context__
            raise cause if isinstance(cause, HttpError) else _malformed(wrapped) from None
        except httptools.HttpParserError as error:
            raise _malformed(error) from None
        if self._progress == progress:
            # httptools buffers an unfinished header or trailer line however long it grows, and never stops reading the
            # extensions of a chunk's length. A read that also holds the end or the beginning of a body does not count.
            self._unfinished_bytes += len(data)
            if self._unfinished_bytes > 2 * self._limits.head:
                raise self._too_long()

    def next_piece(self, data: memoryview) -> int:
        """Return bytes of `data` that hold at most one request's head, or the rest of its body.

        Fed in such pieces, a client that pipelines thousands of requests is parsed one request at a time.
        """
        if self.receiving and not self._in_head:
            length = self._headers.get("content-length", "")
            rest = int(length) - len(self._body) if length.isdecimal() else _CHUNKED_PIECE
            return max(1, min(rest, len(data)))
        start = bytes(data[: self._limits.head])
        end = start.find(b"\r\n\r\n")
        return end + 4 if end >= 0 else len(start)

    def discard(self) -> None:
        """Forget the body received so far."""
        self._budget.give_back(len(self._body))
        self._body = b""
        self.receiving = False

    # -- httptools callbacks -----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Reset the state for a new request."""
        self._begin()
        self._progress += 1
        self._unfinished_bytes = 0
        self.receiving = self._in_head = True

    def on_url(self, url: bytes) -> None:
        """Collect a piece of the URL."""
        self._url += url
        self._head_bytes += len(url)
        if self._head_bytes > self._limits.head:
            raise HttpError(414, "headers", "the URL is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header, or discard a trailer."""
        self._header_count += 1
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > self._limits.head:
            raise self._too_long()
        if self._header_count > self._limits.headers:
            raise HttpError(431, "headers", f"more than {self._limits.headers} headers")
        if self._in_head:  # trailers after a chunked body must not pass for headers (RFC 9110, section 6.5.1)
            self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Check version and length before the body is read."""
        self._in_head = False
        version = self._parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise HttpError(505, "version", "this server speaks HTTP/1.1")
        length = self._headers.get("content-length", "")
        self._check_body(int(length) if length.isdecimal() else 0)
        expected = self._headers.get("expect", "").lower()
        self.expects_continue = expected == "100-continue" and version == "1.1"
        self._on_head()

    def on_body(self, data: bytes) -> None:
        """Collect a piece of the body."""
        self._progress += 1
        self._unfinished_bytes = 0
        self._check_body(len(self._body) + len(data))
        self._budget.take(len(data))
        if not self._body:
            self._body = data  # most photos come in one piece
        elif isinstance(self._body, bytearray):
            self._body += data
        else:
            # One buffer, not a list of pieces: a chunk of two bytes would cost twenty times its size.
            self._body = bytearray(self._body) + data

    def on_message_complete(self) -> None:
        """Hand over the request."""
        self.receiving = self.expects_continue = False
        path, _, query = self._url.partition(b"?")
        request = Request(
            self._parser.get_method().decode("latin-1"),
            path.decode("latin-1"),
            query.decode("latin-1"),
            self._headers,
            bytes(self._body),
            self._parser.should_keep_alive() and not self._parser.should_upgrade(),
        )
        self._budget.take(request.held - len(request.body))
        self._body = b""
        self._on_request(request)

    def _check_body(self, size: int) -> None:
        if size > self._limits.body:
            limit = self._limits.body >> 20
            raise HttpError(
                413, "body_too_large", f"the body is larger than {limit} MiB: send fewer or smaller photos"
            )

    def _too_long(self) -> HttpError:
        return HttpError(431, "headers", f"more than {self._limits.head} bytes of headers")


def _malformed(error: Exception) -> HttpError:
    return HttpError(400, "malformed", f"not a valid HTTP request: {first_line(error)[:120]}")
