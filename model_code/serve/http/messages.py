"""HTTP messages: parsed requests, and responses with their wire format."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http import HTTPStatus

SERVER = "ml-pipeline"
JSON = "application/json"

_HEAD_BYTES = 512

_REASONS = {status.value: status.phrase for status in HTTPStatus}


@dataclass(slots=True)
class Request:
    """A whole request. Header names are lower case; the last of repeated headers counts."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    keep_alive: bool

    @property
    def held(self) -> int:
        """Approximate memory in bytes while it waits: a client may send thousands without a body."""
        return len(self.body) + _HEAD_BYTES


@dataclass(slots=True)
class Response:
    """An answer. `photos` and `reason` are for the access log and the metrics."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    photos: int = 0
    reason: str = ""

    def encode(self, keep_alive: bool, with_body: bool = True) -> bytes:
        """Status line, headers and body."""
        text = (
            f"HTTP/1.1 {self.status} {_REASONS.get(self.status, '')}\r\n"
            f"Server: {SERVER}\r\n"
            f"Content-Type: {self.content_type}\r\n"
            f"Content-Length: {len(self.body)}\r\n"
            f"Connection: {'keep-alive' if keep_alive else 'close'}\r\n"
        )
        for name, value in self.headers:
            text += f"{name}: {value}\r\n"
        head = text.encode("latin-1") + b"\r\n"
        return head + self.body if with_body else head


CLIENT_GONE = Response(499, reason="client_gone")
"""Recorded in log and metrics when the client left before its answer; never sent (nginx's status)."""


@dataclass
class HttpError(Exception):
    """A request answered with an error: `reason` is a short code, `message` a readable line."""

    status: int
    reason: str
    message: str
    headers: tuple[tuple[str, str], ...] = field(default=())

    def response(self) -> Response:
        """Return the error as an answer: `{"error": {"reason": ..., "message": ...}}`."""
        body = json.dumps({"error": {"reason": self.reason, "message": self.message}}).encode() + b"\n"
        return Response(self.status, body, headers=self.headers, reason=self.reason)


def busy(message: str, seconds: int = 1) -> HttpError:
    """503 with Retry-After."""
    return HttpError(503, "busy", message, (("Retry-After", str(seconds)),))
