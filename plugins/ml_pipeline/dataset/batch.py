"""Predict a folder of photos: stage it in S3, then gather the answers into one table."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_pipeline.aws import s3 as objects
from ml_pipeline.aws.clients import Client
from ml_pipeline.aws.transfers import REQUESTS, Transfers
from ml_pipeline.requests.transform import MAX_PAYLOAD_MB
from ml_pipeline.requests.types import Document, Staged, Tabled
from ml_pipeline.settings import Settings
from model_code.process.cells import cell
from model_code.process.parallel import ordered_map

COLUMNS = (
    "photo",
    "class",
    "probability",
    "abstain",
    "second_class",
    "second_probability",
    "unknown",
    "unknown_score",
    "reason",
)
_MAX_BYTES = MAX_PAYLOAD_MB << 20

Row = dict[str, Any]


def stage(s3: Client, settings: Settings, photos: str) -> Staged:
    """Make sure that the photos are in S3.

    An s3:// prefix is used as it is. A local folder is copied to a prefix named after its contents, so an unchanged
    folder is copied only once; photos in sub-folders keep their path. Names decide nothing: any visible file may be a
    photo, and one that is not becomes a row that says so.

    Raises:
        ValueError: There are no files.
    """
    if not photos.strip():
        raise ValueError("`photos` is empty: give a folder or an s3:// prefix with photos in it")
    if photos.startswith("s3://"):
        uri = photos.rstrip("/") + "/"
        count = len(list(files(s3, uri)))
    else:
        uri, count = _copied(s3, settings, Path(photos).expanduser())
    if not count:
        raise ValueError(f"no photos at {photos!r}; give a folder or an s3:// prefix with photos in it")
    return {"photos_uri": uri, "photos": count}


def files(s3: Client, photos_uri: str) -> Iterator[tuple[str, int]]:
    """Yield (key below the prefix, bytes) of the visible objects at `photos_uri`."""
    from model_code.data.source import visible

    for key, size in objects.sizes(s3, photos_uri):
        if not key.endswith("/") and all(map(visible, key.split("/"))):
            yield key, size


def refusal(size: int) -> str | None:
    """Say why a transform job cannot be sent an object of `size` bytes: SageMaker would fail the whole job."""
    if size == 0:
        return "the file is empty"
    if size > _MAX_BYTES:
        return f"the file has {size / (1 << 20):.1f} MB, batch transform takes up to {MAX_PAYLOAD_MB}"
    return None


def table(s3: Client, output_uri: str, photos_uri: str | None, table_uri: str) -> Tabled:
    """Gather a transform job's answers into one CSV, with a row for every photo.

    Args:
        s3: boto3 client of S3.
        output_uri: Prefix of the answers that the job wrote.
        photos_uri: Prefix of the photos; None for a job of an earlier release.
        table_uri: The CSV to write.
    """
    rows = list(rows_of(_answers(s3, output_uri)))
    if photos_uri:
        answered = {row["photo"] for row in rows}
        rows += [
            _failed(key, refusal(size) or "the job left no answer")
            for key, size in files(s3, photos_uri)
            if key not in answered
        ]
        rows.sort(key=lambda row: row["photo"])
    bucket, key = objects.split_uri(table_uri)
    s3.put_object(Bucket=bucket, Key=key, Body=as_csv(rows).encode(), ContentType="text/csv; charset=utf-8")
    counts = Counter(row["class"] for row in rows if not row["reason"])
    unreadable = sum(bool(row["reason"]) for row in rows)
    return {
        "table_uri": table_uri,
        "photos": len(rows) - unreadable,
        "unreadable": unreadable,
        "classes": dict(sorted(counts.items())),
    }


def rows_of(answers: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[Row]:
    """Yield one row per (photo, answer of the model server); see COLUMNS."""
    for photo, answer in answers:
        best = answer["predictions"][0] if "predictions" in answer else answer
        if "error" in best:
            yield _failed(photo, best["error"]["message"])
            continue
        second = best["top"][1] if len(best["top"]) > 1 else {"class": "", "probability": ""}
        yield {
            "photo": photo,
            "class": best["class"],
            "probability": best["probability"],
            "abstain": int(best["abstain"]),
            "second_class": second["class"],
            "second_probability": second["probability"],
            "unknown": "" if best.get("unknown") is None else int(best["unknown"]),
            "unknown_score": "" if best.get("unknown_score") is None else best["unknown_score"],
            "reason": "",
        }


def as_csv(rows: Iterable[Row]) -> str:
    """Write the rows with a header; no text is left that a spreadsheet would execute."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _failed(photo: str, reason: str) -> Row:
    return {**dict.fromkeys(COLUMNS, ""), "photo": photo, "reason": reason}


def _answers(s3: Client, output_uri: str) -> Iterator[tuple[str, Document]]:
    """Yield each photo and its answer, with many requests in flight: a million one by one take 11 hours at 40 ms."""
    transfers = Transfers(s3)
    keys = [key for key in sorted(objects.keys(s3, output_uri)) if key.endswith(".out")]
    bodies = ordered_map(lambda key: transfers.read(output_uri + key), keys, REQUESTS)
    for key, body in zip(keys, bodies, strict=True):
        yield key.removesuffix(".out"), json.loads(body)


def _copied(s3: Client, settings: Settings, folder: Path) -> tuple[str, int]:
    """Copy the visible files of a folder, but for those that an earlier try copied; return their prefix and number."""
    from model_code.data.source import visible

    paths = sorted(path for path in _walk(folder) if all(map(visible, path.relative_to(folder).parts)))
    names = [path.relative_to(folder).as_posix() for path in paths]
    listing = [(name, path.stat().st_size) for name, path in zip(names, paths, strict=True)]
    digest = hashlib.sha256(json.dumps([str(folder.resolve()), listing]).encode()).hexdigest()[:16]
    uri = settings.s3(f"batch/{digest}/photos/")
    transfers, there = Transfers(s3), set(objects.keys(s3, uri))
    missing = [name for name in names if name not in there]
    for _ in ordered_map(lambda name: transfers.write(uri + name, folder / name), missing, REQUESTS):
        pass
    return uri, len(names)


def _walk(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        yield from (Path(root, name) for name in names)
