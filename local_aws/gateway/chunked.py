"""Request bodies with Transfer-Encoding: chunked, read as they arrive.

cheroot's own reader holds a whole chunk in memory, whatever size the client states, and its `readline` never gets
past a line feed: an aws-chunked upload inside chunked transfer, as aws-sdk-cpp sends it, would spin forever.
"""

from __future__ import annotations

import re

from local_aws.errors import AwsError
from local_aws.gateway.connection import Reader

_SIZE = re.compile(rb"[0-9a-fA-F]{1,15}")
_LONGEST_LINE = 8192
_MOST_TRAILERS = 100
_PIECE = 256 * 1024


class ChunkedBody:
    """The decoded body. Malformed framing raises AwsError and ends the connection."""

    def __init__(self, source: Reader) -> None:
        self._source = source
        self._left = 0
        self._begun = self._done = False
        self._buffer = b""

    def read(self, size: int | None = None) -> bytes:
        """Read `size` bytes, all that is left by default; fewer only at the end."""
        pieces: list[bytes] = []
        wanted = -1 if size is None or size < 0 else size
        while wanted and (piece := self._piece(wanted)):
            pieces.append(piece)
            wanted = wanted - len(piece) if wanted > 0 else wanted
        return b"".join(pieces) if len(pieces) != 1 else pieces[0]

    def readline(self, size: int | None = None) -> bytes:
        """Read up to and including a line feed, at most `size` bytes."""
        limit = _LONGEST_LINE if size is None or size < 0 else size
        line = b""
        while len(line) < limit and not line.endswith(b"\n") and (piece := self._piece(_PIECE)):
            end = piece.find(b"\n") + 1 or len(piece)
            end = min(end, limit - len(line))
            line += piece[:end]
            self._buffer = piece[end:] + self._buffer
        return line

    def readlines(self, hint: int = 0) -> list[bytes]:
        """Read the lines of the body, about `hint` bytes of them."""
        lines: list[bytes] = []
        while (not hint or sum(map(len, lines)) < hint) and (line := self.readline(_PIECE)):
            lines.append(line)
        return lines

    def __iter__(self) -> ChunkedBody:
        return self

    def __next__(self) -> bytes:
        line = self.readline(_PIECE)
        if not line:
            raise StopIteration
        return line

    def close(self) -> None:
        """Do nothing: the connection closes the socket."""

    def _piece(self, most: int) -> bytes:
        """Return some bytes, at most `most` unless it is negative; b"" at the end."""
        most = _PIECE if most < 0 else min(most, _PIECE)
        if self._buffer:
            piece, self._buffer = self._buffer[:most], self._buffer[most:]
            return piece
        if not self._left and not self._done:
            self._next_chunk()
        if self._done:
            return b""
        piece = self._source.read(min(most, self._left))
        if not piece:
            raise self._broken()
        self._left -= len(piece)
        return piece

    def _next_chunk(self) -> None:
        if self._begun and self._source.readline(2) != b"\r\n":
            raise self._broken()
        self._begun = True
        line = self._source.readline(_LONGEST_LINE)
        size = line.rstrip(b"\r\n").partition(b";")[0].strip()
        if not line.endswith(b"\n") or not _SIZE.fullmatch(size):
            raise self._broken()
        self._left = int(size, 16)
        if self._left:
            return
        for _ in range(_MOST_TRAILERS):
            line = self._source.readline(_LONGEST_LINE)
            if not line.rstrip(b"\r\n"):
                self._done = True
                return
        raise self._broken()

    def _broken(self) -> AwsError:
        self._done = True
        self._source.end()
        return AwsError("IncompleteBody", "The request body is not valid chunked transfer encoding.")
