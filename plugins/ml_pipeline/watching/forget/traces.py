"""Take photos out of an object of the bucket. Pure functions: bytes in, bytes out."""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import io
import json
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model_code.data.shards import ShardInfo, index_shard, key_of, read_shard, read_split, write_shard
from model_code.data.versions import thumbnails
from model_code.process.cells import cell
from model_code.watch.captures import photos_in


@dataclass
class Traces:
    """Names under which photos are known.

    Attributes:
        photos: SHA-256 of each.
        ids: InferenceIds of requests that sent one.
        names: Names of files with one, as predictions name them.
    """

    photos: frozenset[str]
    ids: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)

    def holds(self, photo: bytes) -> bool:
        """Tell whether these are the bytes of one of the photos."""
        return hashlib.sha256(photo).hexdigest() in self.photos

    def named_in(self, text: str) -> bool:
        """Tell whether a text names one by its hash, or by the key that begins it."""
        return any(key_of(photo) in text for photo in self.photos)


def without(key: str, body: bytes, traces: Traces) -> bytes | None:
    """Return what is left of the object `key`: `body` itself where no photo is in it, None where nothing may stay.

    A page is not taken apart: it goes, and the job that made it makes it again.
    """
    name = key.rpartition("/")[2]
    answered = key.partition("/answers/")[2].removesuffix(".out")
    if traces.named_in(key) or traces.holds(body) or answered in traces.names:
        return None
    if name.endswith(".tar.gz"):
        return _model(body, traces) if key.startswith("jobs/") else body
    parts = key.split("/")
    if parts[0] == "datasets" and parts[2:3] in (["shards"], ["thumbnails"]):
        return _packed(name, body, traces)
    if name.endswith(".html"):
        return None if traces.named_in(body.decode(errors="replace")) else body
    if name.endswith(".csv"):
        return _table(body, traces)
    if name.endswith(".jsonl.gz"):
        try:
            unpacked = gzip.decompress(body)
        except (OSError, EOFError, zlib.error):
            return body  # not ours
        rest = without(key.removesuffix(".gz"), unpacked, traces)
        return body if rest == unpacked else gzip.compress(rest or b"", 1, mtime=0)
    if name.endswith(".jsonl"):
        keep = _asked if key.startswith("captures/") else _line
        lines = body.splitlines(keepends=True)
        left = [line for line in lines if keep(line, traces)]
        return body if len(left) == len(lines) else b"".join(left)
    if name.endswith(".json"):
        return _document(body, traces)
    return body


def _packed(name: str, body: bytes, traces: Traces) -> bytes | None:
    """Return thumbnails without those of the photos; a shard of no version, which an upload left, goes as a whole."""
    if name.endswith(".zip"):
        return thumbnails.without(body, traces.photos)
    return None if any(key_of(photo).encode() in body for photo in traces.photos) else body


def reshard(body: bytes, traces: Traces, store: Callable[[ShardInfo, Path], None]) -> ShardInfo | None:
    """Write a shard again without the photos and hand it to `store`; None where no other photo was in it."""
    with tempfile.TemporaryDirectory(prefix="ml-pipeline-forget-") as folder:
        old, new = Path(folder) / "old.tar", Path(folder) / "new.tar"
        old.write_bytes(body)
        gone = {key_of(photo) for photo in traces.photos}
        if all(entry.key in gone for entry in index_shard(old)):
            return None
        kept = (sample for sample in read_shard(old) if sample.key not in gone)
        info = write_shard(new, read_split(old), kept)
        store(info, new)
        return info


def _asked(line: bytes, traces: Traces) -> bool:
    """Keep a captured request unless it sent a photo; remembers under which InferenceId it did."""
    if not any(map(traces.holds, photos_in(line))):
        return True
    if inference_id := json.loads(line).get("eventMetadata", {}).get("inferenceId"):
        traces.ids.add(str(inference_id))
    return False


def _line(line: bytes, traces: Traces) -> bool:
    text = line.decode(errors="replace")
    return not traces.named_in(text) and not any(json.dumps(known) in text for known in traces.ids)


def _table(body: bytes, traces: Traces) -> bytes:
    rows = list(csv.reader(io.StringIO(body.decode(errors="replace"))))
    names = traces.names | {cell(name) for name in traces.names}
    left = [row for row in rows if not row or row[0] not in names]
    if len(left) == len(rows):
        return body
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(left)
    return text.getvalue().encode()


def _document(body: bytes, traces: Traces) -> bytes | None:
    text = body.decode(errors="replace")
    if not traces.named_in(text):
        return body
    try:
        left = _pruned(json.loads(text), traces)
    except ValueError:
        return None
    return None if left is None else json.dumps(left, indent=1, ensure_ascii=False).encode()


def _pruned(node: Any, traces: Traces) -> Any:
    """Return a document without the members of lists and objects that name a photo; None: it names one itself."""
    if isinstance(node, list):
        return [left for item in node if (left := _pruned(item, traces)) is not None or item is None]
    if isinstance(node, dict):
        if any(isinstance(value, str) and traces.named_in(value) for value in node.values()):
            return None
        return {
            name: left
            for name, item in node.items()
            if not traces.named_in(name) and ((left := _pruned(item, traces)) is not None or item is None)
        }
    return None if isinstance(node, str) and traces.named_in(node) else node


def _model(body: bytes, traces: Traces) -> bytes:
    """Return a model archive without golden inputs that are one of the photos."""
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        members = [member for member in archive if member.name.removeprefix("./") == "model.json"]
        if not members:
            return body
        card = json.loads(archive.extractfile(members[0]).read())  # type: ignore[union-attr]
        golden = [entry for entry in card["golden"] if not traces.holds(base64.b64decode(entry["photo"]))]
        if len(golden) == len(card["golden"]):
            return body
        text = json.dumps({**card, "golden": golden}, indent=1).encode()
        written = io.BytesIO()
        with tarfile.open(fileobj=written, mode="w:gz", compresslevel=1) as left:
            for member in archive.getmembers():
                content = archive.extractfile(member)
                if member.name == members[0].name:
                    member.size, content = len(text), io.BytesIO(text)
                left.addfile(member, content)
        return written.getvalue()


def names_of(keys: Iterable[str]) -> set[str]:
    """Return the names by which predictions know staged photos, `batch/<hash>/photos/<name>`."""
    return {key.partition("/photos/")[2] for key in keys if key.startswith("batch/") and "/photos/" in key}
