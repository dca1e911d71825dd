"""Tables of photos and labels: CSV, JSONL, and Ground Truth's augmented manifest. Standard library only."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_code.data.source import Candidate, DatasetError, class_name, fault, file_stamp
from model_code.process.cores import cores

ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".manifest")
_PATHS = ("source", "source-ref", "path", "photo", "image", "file", "filename")
_LABELS = ("label", "class", "category")
_METADATA = "-metadata"
_SHOWN = 5


@dataclass(frozen=True)
class Row:
    """A line of a table: the photo's address (absolute, or relative to the table) and its class."""

    line: int
    path: str
    label: str


def is_table(address: str) -> bool:
    """Tell whether an address is that of a table, by its ending."""
    return address.lower().endswith(ENDINGS)


def read_table(name: str, data: bytes) -> list[Row]:
    """Read the rows of a table.

    CSV needs a header line. The columns are `source` or `path` and `label`; of an augmented manifest, `source-ref` and
    the label attribute, whose class name is read from its metadata.

    Args:
        name: The table's name; its ending tells the format, and messages name it.
        data: Its bytes, UTF-8.

    Raises:
        DatasetError: Lines are wrong; the message names them, and what is missing.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DatasetError(f"{name}, line {line}: not UTF-8; save the table as UTF-8") from error
    lower = name.lower()
    lines = (
        _csv(name, text, "\t" if lower.endswith(".tsv") else ",")
        if lower.endswith((".csv", ".tsv"))
        else _json(text)
    )
    rows: list[Row] = []
    mistakes: list[str] = []
    for line, fields in lines:
        found = _row(line, fields)
        if isinstance(found, Row):
            rows.append(found)
        else:
            mistakes.append(f"line {line}: {found}")
    if mistakes:
        more = f" and {len(mistakes) - _SHOWN} more" if len(mistakes) > _SHOWN else ""
        raise DatasetError(f"{name}: {'; '.join(mistakes[:_SHOWN])}{more}")
    if not rows:
        raise DatasetError(f"{name} holds no row; each needs the columns source (or path) and label")
    return rows


def _csv(name: str, text: str, delimiter: str) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restkey="", strict=True)
    columns = [str(column).strip().lower() for column in reader.fieldnames or ()]
    if not set(columns) & set(_PATHS) or not set(columns) & set(_LABELS):
        raise DatasetError(
            f"{name}, line 1: no columns source (or path) and label among {', '.join(columns) or 'nothing'}; "
            "write a header line like: path,label"
        )
    reader.fieldnames = columns
    try:
        for fields in reader:
            if fields.get(""):
                yield reader.line_num, "more fields than the header has columns; quote commas"
            else:
                yield reader.line_num, fields
    except csv.Error as error:
        yield reader.line_num, str(error)


def _json(text: str) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    for line, part in enumerate(text.splitlines(), start=1):
        if not part.strip():
            continue
        try:
            fields = json.loads(part)
        except ValueError as error:
            yield line, f"not JSON ({error})"
            continue
        yield line, fields if isinstance(fields, dict) else "not a JSON object"


def _row(line: int, fields: Mapping[str, Any] | str) -> Row | str:
    """Return the row of a line, or what is wrong with it."""
    if isinstance(fields, str):
        return fields
    path = next((fields[name] for name in _PATHS if fields.get(name)), None)
    if not isinstance(path, str) or not path.strip():
        return "no source (or path)"
    label = next((fields[name] for name in _LABELS if fields.get(name) not in (None, "")), None)
    if label is None:
        label = _augmented(fields)
    if not isinstance(label, str) or not label.strip():
        return "no label" if label is None else f"label {label!r} is not the name of a class"
    try:
        return Row(line, path.strip(), class_name(label.strip()))
    except DatasetError as error:
        return str(error)


def _augmented(fields: Mapping[str, Any]) -> Any:
    """Return the class name of Ground Truth's image classification output: `<attribute>-metadata` has it."""
    for name, value in fields.items():
        metadata = fields.get(name.removesuffix(_METADATA) + _METADATA)
        if name.endswith(_METADATA) or not isinstance(metadata, Mapping):
            continue
        if isinstance(metadata.get("class-name"), str):
            return metadata["class-name"]
        if isinstance(value, str):
            return value
    return None


@dataclass(frozen=True)
class LocalTable:
    """A table on disk; relative paths start at its folder. A `model_code.data.source.Source`."""

    file: Path

    @property
    def requests(self) -> int:
        """Most files to read at once: decoding them is what takes the time."""
        return cores()

    def describe(self) -> str:
        """Return the address, for messages."""
        return str(self.file)

    def candidates(self) -> Iterator[Candidate]:
        """Yield the photos of the table, in its order.

        Raises:
            DatasetError: The table cannot be read.
        """
        if not self.file.is_file():
            raise DatasetError(f"{self.file} does not exist; point DATA at a table or a folder of photos")
        for row in read_table(self.file.name, self.file.read_bytes()):
            if "://" in row.path:
                raise DatasetError(
                    f"{self.file}, line {row.line}: {row.path} is not on this disk; put the table into S3 too"
                )
            size, stamp = file_stamp(self.file.parent / row.path)
            yield Candidate(row.path, row.label, size, stamp)

    def stray(self) -> list[str]:
        """Return nothing: a table has no files outside its classes."""
        return []

    def fault(self, path: str) -> str | None:
        """See `model_code.data.source.fault`."""
        return fault(self.file.parent / path)

    def read(self, path: str) -> bytes:
        """Return the bytes of one file."""
        return (self.file.parent / path).read_bytes()
