"""A JSON line per request, written by a thread of its own: a slow or full log never holds up an answer."""

from __future__ import annotations

import json
import os
import queue
import threading
from collections.abc import Iterator
from typing import Any

_CAPACITY = 10_000
# POSIX keeps writes of up to PIPE_BUF bytes whole when several processes share a pipe.
_ATOMIC = 4096


class AccessLog:
    """Lines to a file or standard output; beyond a backlog of 10,000 they are dropped and counted in `lost`."""

    def __init__(self, target: str) -> None:
        self.lost = 0
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
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
        if self._queue.qsize() >= _CAPACITY:
            self.lost += 1
        else:
            self._queue.put(fields)

    def close(self) -> None:
        """Write what is queued, for at most a second."""
        if self._file >= 0:
            self._queue.put(None)
            self._thread.join(1.0)

    def _write(self) -> None:
        while (fields := self._queue.get()) is not None:
            for part in self._parts(fields):
                try:
                    os.write(self._file, part)
                except OSError:
                    self.lost += part.count(b"\n")

    def _parts(self, fields: dict[str, Any]) -> Iterator[bytes]:
        """`fields` and all that is waiting, as lines in pieces that are written whole."""
        part = _line(fields)
        while self._queue.qsize():
            more = self._queue.get()
            if more is None:
                self._queue.put(None)
                break
            line = _line(more)
            if len(part) + len(line) > _ATOMIC:
                yield part
                part = b""
            part += line
        yield part


def _line(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode() + b"\n"
