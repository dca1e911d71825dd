"""AWS's event stream encoding (application/vnd.amazon.eventstream): messages of headers and a payload."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping

_STRING = 7


def event(kind: str, payload: bytes) -> bytes:
    """Encode one event; its payload is the member marked `eventpayload` in the service model."""
    headers = {":message-type": "event", ":event-type": kind, ":content-type": "application/octet-stream"}
    return _message(headers, payload)


def exception(kind: str, document: Mapping[str, object]) -> bytes:
    """Encode a modelled exception, which ends the stream."""
    headers = {":message-type": "exception", ":exception-type": kind, ":content-type": "application/json"}
    return _message(headers, json.dumps(document).encode())


def _message(headers: Mapping[str, str], payload: bytes) -> bytes:
    encoded = b"".join(
        struct.pack(">B", len(name))
        + name.encode()
        + struct.pack(">BH", _STRING, len(value))
        + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", 16 + len(encoded) + len(payload), len(encoded))
    prelude += struct.pack(">I", zlib.crc32(prelude))
    message = prelude + encoded + payload
    return message + struct.pack(">I", zlib.crc32(message))
