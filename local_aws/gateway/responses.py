"""Write WSGI responses in AWS's formats."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, BinaryIO
from xml.sax.saxutils import escape

from local_aws.errors import AwsError

StartResponse = Callable[..., Any]
Environ = dict[str, Any]
WsgiApp = Callable[[Environ, StartResponse], Iterable[bytes]]
_DRAIN_BYTES = 1 << 20
_REASONS = {
    200: "OK",
    202: "Accepted",
    204: "No Content",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Payload Too Large",
    424: "Failed Dependency",
    429: "Too Many Requests",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


def iso_time(seconds: float, timespec: str = "milliseconds") -> str:
    """`2026-01-31T12:00:00.000Z`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def status_line(status: int) -> str:
    """Return a WSGI status line: `404` -> `404 Not Found`."""
    return f"{status} {_REASONS.get(status, 'Unknown')}"


def respond(
    start_response: StartResponse,
    status: int,
    body: bytes,
    content_type: str,
    headers: Mapping[str, str] | None = None,
) -> list[bytes]:
    """Answer with a whole body."""
    lines = [
        ("Content-Type", content_type),
        ("Content-Length", str(len(body))),
        ("x-amzn-RequestId", str(uuid.uuid4())),
        *(headers or {}).items(),
    ]
    start_response(status_line(status), lines)
    return [body]


def respond_json(start_response: StartResponse, document: Any, status: int = 200) -> list[bytes]:
    """Answer with JSON that belongs to no AWS protocol (the admin pages)."""
    return respond(start_response, status, json.dumps(document).encode(), "application/json")


def respond_error(start_response: StartResponse, error: AwsError, protocol: str = "json") -> list[bytes]:
    """Answer with `error` in the wire format of `protocol` (botocore's `protocol` metadata)."""
    code, message = error.code, error.message
    if protocol in ("json", "rest-json"):
        document = {"__type": code, "message": message, "Message": message, **error.fields}
        content_type = "application/x-amz-json-1.1" if protocol == "json" else "application/json"
        return respond(
            start_response,
            error.status,
            json.dumps(document).encode(),
            content_type,
            {"x-amzn-ErrorType": code},
        )
    inner = f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
    request_id = str(uuid.uuid4())
    if protocol == "ec2":
        text = (
            f"<Response><Errors><Error>{inner}</Error></Errors><RequestID>{request_id}</RequestID></Response>"
        )
    elif protocol == "rest-xml":
        text = f"<Error>{inner}<RequestId>{request_id}</RequestId></Error>"
    else:
        text = (
            f"<ErrorResponse><Error><Type>Sender</Type>{inner}</Error>"
            f"<RequestId>{request_id}</RequestId></ErrorResponse>"
        )
    return respond(start_response, error.status, text.encode(), "text/xml")


def drain(stream: BinaryIO) -> None:
    """Read the rest of a request body, so that the connection can carry the next request."""
    try:
        while stream.read(_DRAIN_BYTES):
            pass
    except (AwsError, OSError, ValueError):
        return
