"""HTTP connections that answer successive requests on the same thread.

cheroot hands a connection back to a selector after each request, and reads and writes through buffers in pure
Python; together that is two thirds of the cost of a GET of 100 kB.
"""

from __future__ import annotations

import select
import socket
from typing import Any

from cheroot.server import HTTPConnection

_FOLLOWS_MILLISECONDS = 2
_RECEIVE = 64 * 1024
_MOST_RECEIVED = 1024 * 1024
_LONGEST_LINE = 64 * 1024


class Connection(HTTPConnection):
    """A cheroot connection that reads and writes its socket directly."""

    def __init__(self, server: Any, sock: socket.socket, _makefile: Any = None) -> None:
        super().__init__(server, sock, _stream)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def communicate(self) -> bool:
        """Answer requests while more arrive and no other connection waits for a thread.

        Returns:
            True to keep the connection; cheroot's selector then watches it.
        """
        while super().communicate():  # type: ignore[no-untyped-call]
            server = self.server
            if self.rfile.ended:
                return False
            if not server.ready or server.requests.qsize or not self._follows():
                return True
        return False

    def _follows(self) -> bool:
        return self.rfile.has_data() or bool(self._poll.poll(_FOLLOWS_MILLISECONDS))


class Reader:
    """The bytes a client sends. Reads raise TimeoutError (the socket's) when it falls silent."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = b""
        self._position = 0
        self.ended = False
        self.bytes_read = 0

    def end(self) -> None:
        """Read nothing more: the bytes that follow cannot be told from a request."""
        self._buffer, self._position, self.ended = b"", 0, True

    def has_data(self) -> bool:
        """Return True if bytes of the next request have arrived."""
        return self._position < len(self._buffer)

    def read(self, size: int) -> bytes:
        """Read `size` bytes; fewer only at the end of the stream."""
        pieces = [self._take(size)]
        got = len(pieces[0])
        while got < size:
            piece = self._receive(min(size - got, _MOST_RECEIVED))
            if not piece:
                break
            pieces.append(piece)
            got += len(piece)
        self.bytes_read += got
        return b"".join(pieces) if len(pieces) > 1 else pieces[0]

    def readline(self, longest: int = _LONGEST_LINE) -> bytes:
        """Read up to and including a line feed, at most `longest` bytes."""
        end = self._buffer.find(b"\n", self._position) + 1
        while not end and len(self._buffer) - self._position < longest:
            piece = self._receive(_RECEIVE)
            if not piece:
                break
            seen = len(self._buffer) - self._position
            self._buffer = self._buffer[self._position :] + piece
            self._position = 0
            end = self._buffer.find(b"\n", seen) + 1
        line = self._take(min(end - self._position if end else longest, longest))
        self.bytes_read += len(line)
        return line

    def close(self) -> None:
        """Do nothing: the connection closes the socket."""

    def _receive(self, size: int) -> bytes:
        return b"" if self.ended else self._socket.recv(size)

    def _take(self, size: int) -> bytes:
        start = self._position
        taken = self._buffer[start : start + size]
        self._position = start + len(taken)
        if self._position == len(self._buffer):
            self._buffer, self._position = b"", 0
        return taken


class Writer:
    """An unbuffered writer to a client."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.bytes_written = 0

    def write(self, data: bytes) -> int:
        """Send all of `data`."""
        self._socket.sendall(data)
        self.bytes_written += len(data)
        return len(data)


def _stream(sock: socket.socket, mode: str, _size: int) -> Reader | Writer:
    return Reader(sock) if "r" in mode else Writer(sock)
