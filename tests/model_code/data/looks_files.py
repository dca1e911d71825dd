"""Files of findings as bytes, for tests that put them somewhere."""

from __future__ import annotations

import io
from collections.abc import Mapping

from model_code.data.records import Photo, Rejected
from model_code.data.versions import looks
from model_code.data.versions.columns import Findings


def to_bytes(found: Mapping[str, tuple[str, Photo | Rejected]]) -> bytes:
    """Return the file of some findings."""
    columns, file = Findings.of(found), io.BytesIO()
    looks.write(file, columns, range(len(columns)))
    return file.getvalue()


def from_bytes(data: bytes) -> Findings:
    """Read such a file; see `looks.read`."""
    return looks.read(io.BytesIO(data))
