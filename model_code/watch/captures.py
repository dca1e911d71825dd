"""Captured requests and answers of an endpoint (SageMaker data capture, JSON lines) as photos."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

TEST_MARK: Final = "ml-pipeline-test"
"""Begins the InferenceId of smoke tests, `make predict` and the console's Try: never watched, queued or labeled."""

_PHOTO_KEYS: Final = ("b64", "image", "photo", "data", "image_bytes", "bytes")


@dataclass(frozen=True)
class Served:
    """A photo that an endpoint received.

    Args:
        id: Event of the capture and the photo's number in its request; the same in every copy of the line.
        inference_id: The client's name of the request; "" where it gave none.
        time: Of the answer, by the endpoint's clock.
        data: The photo's bytes as they came.
        sha256: Of `data`.
    """

    id: str
    inference_id: str
    time: datetime
    data: bytes = field(repr=False)
    sha256: str


@dataclass
class Tally:
    """Captured lines and photos by what became of them: "tests", "repeated", "damaged lines", "no input"."""

    left_out: Counter[str] = field(default_factory=Counter)


def read_captures(files: Iterable[Path], tally: Tally) -> Iterator[Served]:
    """Yield the photos of capture files, each once; what cannot be read is counted in `tally` and never an error."""
    seen: set[str] = set()
    for file in files:
        with file.open("rb") as lines:
            for line in lines:
                if line.strip():
                    yield from _photos_of_line(line, tally, seen)


def photos_in(line: bytes) -> list[bytes]:
    """Return every photo of a captured line, those of tests included; none of a line that cannot be read."""
    try:
        return list(_bodies(json.loads(line)["captureData"]["endpointInput"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


def _photos_of_line(line: bytes, tally: Tally, seen: set[str]) -> Iterator[Served]:
    try:
        record = json.loads(line)
        metadata = record["eventMetadata"]
        event, inference_id = str(metadata["eventId"]), str(metadata.get("inferenceId") or "")
        time = _time(str(metadata["inferenceTime"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        tally.left_out["damaged lines"] += 1
        return
    if inference_id.startswith(TEST_MARK):
        tally.left_out["tests"] += 1
        return
    if event in seen:
        tally.left_out["repeated"] += 1
        return
    seen.add(event)
    try:
        bodies = list(_bodies(record["captureData"]["endpointInput"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        tally.left_out["no input"] += 1
        return
    for number, data in enumerate(bodies):
        digest = hashlib.sha256(data).hexdigest()
        yield Served(f"{event}/{number}", inference_id, time, data, digest)


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _bodies(side: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield photos of one captured request: its bytes, or those in a JSON document or in JSON lines."""
    data, encoding = str(side["data"]), str(side.get("encoding", "BASE64"))
    raw = base64.b64decode(data, validate=True) if encoding == "BASE64" else data.encode()
    if "json" not in str(side.get("observedContentType", "")).lower():
        yield raw
        return
    try:
        yield from _in_document(json.loads(raw))
    except json.JSONDecodeError:
        for line in raw.splitlines():
            if line.strip():
                yield from _in_document(json.loads(line))


def _in_document(document: Any) -> Iterator[bytes]:
    if isinstance(document, list):
        for part in document:
            yield from _in_document(part)
    elif isinstance(document, Mapping):
        for name, part in document.items():
            if isinstance(part, str) and name in _PHOTO_KEYS:
                yield _decoded(part)
            elif not isinstance(part, str):
                yield from _in_document(part)
    elif isinstance(document, str):
        yield _decoded(document)


def _decoded(text: str) -> bytes:
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(
            text.translate(str.maketrans("-_", "+/")) + "=" * (-len(text) % 4), validate=True
        )
    except binascii.Error as error:
        raise ValueError("no base64") from error
