"""A JSON line per request, written by a thread of its own: a slow or full log never holds up an answer."""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

_CAPACITY = 10_000
_INTERVAL = 0.1
"""Seconds between writes: waking the thread for every line costs more than the line."""
# POSIX keeps writes of up to PIPE_BUF bytes whole when several processes share a pipe.
_ATOMIC = 4096


class AccessLog:
    """Lines to a file or standard output; beyond a backlog of 10,000 they are dropped and counted in `lost`."""

    def __init__(self, target: str) -> None:
        self.lost = 0
        self._lines: deque[dict[str, Any]] = deque()
        self._stop = threading.Event()
        self._file = -1
        if target != "off":
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            self._file = os.dup(1) if target == "-" else os.open(target, flags, 0o644)
            self._thread = threading.Thread(target=self._write, name="access-log", daemon=True)
            self._thread.start()

    def write(self, fields: dict[str, Any]) -> None:
        """Queue a line."""
        if self._file < 0:
            return
        if len(self._lines) >= _CAPACITY:
            self.lost += 1
        else:
            self._lines.append(fields)

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
        """All that is waiting, as lines in pieces that are written whole."""
        part = b""
        while self._lines:
            line = json.dumps(self._lines.popleft()).encode() + b"\n"
            if len(part) + len(line) > _ATOMIC:
                yield part
                part = b""
            part += line
        if part:
            yield part
