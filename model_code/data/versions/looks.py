"""The findings of the last look at a source, so that the next one reads only what changed."""

from __future__ import annotations

import gzip
import json
import shutil
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from json.encoder import encode_basestring_ascii as _quoted
from pathlib import Path
from typing import BinaryIO

from model_code.data.photos import NEEDS_HEIF, reads_heif
from model_code.data.records import Photo, Rejected
from model_code.data.versions.columns import Findings

NAME = "looks.jsonl.gz"
SCHEMA_VERSION = 1
# Raise it when the same file would be judged differently: earlier findings are then not reused.
_CODE = 1
_PART = 1000


def write(file: BinaryIO, found: Findings, rows: Iterable[int]) -> None:
    """Write gzipped lines of JSON: a header, then one line per file."""
    header = {"schema_version": SCHEMA_VERSION, "judge": f"{_CODE}"}
    _pack(file, chain([f"{json.dumps(header)}\n"], (_line(found, row) for row in rows)))


def extend(file: BinaryIO, earlier: BinaryIO, found: Findings, rows: Iterable[int]) -> None:
    """Write what `earlier` holds, without reading its lines, and one line per row: gzip reads both as one file."""
    shutil.copyfileobj(earlier, file)
    _pack(file, (_line(found, row) for row in rows))


def _pack(file: BinaryIO, lines: Iterator[str]) -> None:
    with gzip.GzipFile("", "wb", 1, file, mtime=0) as packed:
        while part := "".join(islice(lines, _PART)):
            packed.write(part.encode())


def _line(found: Findings, row: int) -> str:
    look = found.found(row)
    start = f'{{"path": {_quoted(found.path(row))}, "stamp": {_quoted(found.stamp(row))}'
    if isinstance(look, Rejected):
        return f'{start}, "reason": {_quoted(look.reason)}}}\n'
    phash = "null" if look.phash is None else f'"{look.phash:016x}"'
    return (
        f'{start}, "sha256": "{look.sha256}", "class": {_quoted(look.label)}, "phash": {phash}, '
        f'"bytes": {look.bytes}, "suffix": {_quoted(look.suffix)}}}\n'
    )


def read(file: BinaryIO) -> Findings:
    """Read a file of findings, line by line.

    Damaged or foreign findings are no findings: the files are then read again. So are HEIC photos that were left out,
    where they can be decoded now.
    """
    found, again = Findings(), NEEDS_HEIF if reads_heif() else None
    try:
        with gzip.GzipFile(fileobj=file) as lines:
            header = json.loads(next(lines))
            # Earlier releases added "+heif".
            judge = header["judge"].partition("+")[0]
            if (header["schema_version"], judge) != (SCHEMA_VERSION, f"{_CODE}"):
                return Findings()
            for fields in map(json.loads, lines):
                if again is None or fields.get("reason") != again:
                    found.add(fields["path"], fields["stamp"], _found(fields))
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, StopIteration):
        return Findings()
    return found


def read_paths(dataset: Path | None) -> dict[str, str]:
    """Read original paths by key from the file next to a manifest, of copies the first; {} where there is none."""
    folder = dataset.parent if dataset is not None and dataset.is_file() else dataset
    file = folder / NAME if folder is not None else None
    if file is None or not file.is_file():
        return {}
    with file.open("rb") as opened:
        looked = read(opened)
    paths: dict[str, str] = {}
    for found in map(looked.found, range(len(looked))):
        if isinstance(found, Photo):
            paths.setdefault(
                found.key, found.path.encode(errors="replace").decode()
            )  # not all names are UTF-8
    return paths


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
