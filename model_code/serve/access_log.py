"""The access log: a JSON line per request, written by its own thread, so that a slow or full log delays no answer."""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

_CAPACITY = 10_000
_INTERVAL = 0.1
"""Seconds between writes: waking the thread for every line costs more than the line."""
# POSIX keeps writes of up to PIPE_BUF bytes whole when several processes share a pipe.
_ATOMIC = 4096


@dataclass(slots=True)
class Entry:
    """One request, without its photos or long texts: a backlog must not hold them.

    Args:
        at: Time of the answer, seconds since 1970.
        method: None, and so are the fields after it, if the request was never complete.
    """

    at: float
    status: int
    reason: str = ""
    method: str | None = None
    path: str = ""
    seconds: float = 0.0
    photos: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    attributes: str | None = None
    inference_id: str | None = None

    def fields(self) -> dict[str, Any]:
        """Return the fields of the log line."""
        said: dict[str, Any] = {
            "time": datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds")
        }
        if self.method is not None:
            said |= {"method": self.method, "path": self.path}
        said["status"] = self.status
        if self.method is not None:
            said |= {
                "ms": round(self.seconds * 1000, 2),
                "photos": self.photos,
                "bytes_in": self.bytes_in,
                "bytes_out": self.bytes_out,
            }
        if self.reason:
            said["reason"] = self.reason
        if self.attributes is not None:
            said["attributes"] = self.attributes
        if self.inference_id is not None:
            said["inference_id"] = self.inference_id
        return said


class AccessLog:
    """Writes lines to a file or standard output. Beyond a backlog of 10,000 they are dropped and counted in `lost`."""

    def __init__(self, target: str) -> None:
        self.lost = 0
        self._lines: deque[Entry] = deque()
        self._stop = threading.Event()
        self._file = -1
        if target != "off":
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            self._file = os.dup(1) if target == "-" else os.open(target, flags, 0o644)
            self._thread = threading.Thread(target=self._write, name="access-log", daemon=True)
            self._thread.start()

    def write(self, entry: Entry) -> None:
        """Queue a line."""
        if self._file < 0:
            return
        if len(self._lines) >= _CAPACITY:
            self.lost += 1
        else:
            self._lines.append(entry)

    def close(self) -> None:
        """Write what is queued, for at most a second."""
        if self._file >= 0:
            self._stop.set()
            self._thread.join(1.0)

    def _write(self) -> None:
        stopping = False
        while not stopping:
            stopping = self._stop.wait(_INTERVAL)
            for part in self._parts():
                try:
                    os.write(self._file, part)
                except OSError:
                    self.lost += part.count(b"\n")

    def _parts(self) -> Iterator[bytes]:
        """Yield all waiting lines in pieces small enough to be written atomically."""
        part = b""
        while self._lines:
            line = json.dumps(self._lines.popleft().fields()).encode() + b"\n"
            if len(part) + len(line) > _ATOMIC:
                yield part
                part = b""
            part += line
        if part:
            yield part
