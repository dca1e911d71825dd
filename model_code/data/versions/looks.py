"""The findings of the last look at a source, so that the next one reads only what changed."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator

from model_code.data.photos import reads_heif
from model_code.data.records import Photo, Rejected
from model_code.data.scan import Known

SCHEMA_VERSION = 1
# Raise it when the same file would be judged differently: earlier findings are then not reused.
_CODE = 1


def to_bytes(looks: Known) -> bytes:
    """Gzipped lines of JSON: a header, then one line per file."""
    lines = "".join(f"{json.dumps(fields, ensure_ascii=True)}\n" for fields in _lines(looks))
    return gzip.compress(lines.encode(), compresslevel=1, mtime=0)


def _lines(looks: Known) -> Iterator[dict[str, object]]:
    yield {"schema_version": SCHEMA_VERSION, "judge": _judge()}
    for path, (stamp, found) in looks.items():
        if isinstance(found, Photo):
            phash = None if found.phash is None else f"{found.phash:016x}"
            yield {
                "path": path, "stamp": stamp, "sha256": found.sha256, "class": found.label, "phash": phash,
                "bytes": found.bytes, "suffix": found.suffix,
            }  # fmt: skip
        else:
            yield {"path": path, "stamp": stamp, "reason": found.reason}


def from_bytes(data: bytes) -> dict[str, tuple[str, Photo | Rejected]]:
    """Inverse of `to_bytes`. Damaged or foreign findings are no findings: the files are then read again."""
    try:
        lines = iter(gzip.decompress(data).decode().splitlines())
        if json.loads(next(lines)) != {"schema_version": SCHEMA_VERSION, "judge": _judge()}:
            return {}
        return {fields["path"]: (fields["stamp"], _found(fields)) for fields in map(json.loads, lines)}
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, StopIteration):
        return {}


def _found(fields: dict[str, str]) -> Photo | Rejected:
    if "reason" in fields:
        return Rejected(fields["path"], fields["reason"])
    return Photo(
        path=fields["path"],
        label=fields["class"],
        sha256=fields["sha256"],
        phash=None if fields["phash"] is None else int(fields["phash"], 16),
        bytes=int(fields["bytes"]),
        suffix=fields["suffix"],
    )


def _judge() -> str:
    """Version of the rules that tell photos from other files; with a new decoder, rejected files are read again."""
    return f"{_CODE}{'+heif' if reads_heif() else ''}"
