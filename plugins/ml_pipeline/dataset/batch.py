"""Predictions for a folder of photos, as one table."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_pipeline.aws import s3 as objects
from ml_pipeline.dataset.photos import is_photo
from ml_pipeline.settings import Settings

COLUMNS = (
    "photo",
    "class",
    "probability",
    "abstain",
    "second_class",
    "second_probability",
    "unknown",
    "unknown_score",
)


def stage(s3: Any, settings: Settings, photos: str) -> dict[str, Any]:
    """Make sure that the photos are in S3. Returns `{"photos_uri", "photos"}`.

    An s3:// prefix is used as it is. A local folder is copied to a prefix named after what it holds, so the same
    folder is copied once; photos in sub-folders keep their path.

    Raises:
        ValueError: There is no photo.
    """
    if photos.startswith("s3://"):
        uri = photos.rstrip("/") + "/"
        count = sum(is_photo(key) for key in objects.keys(s3, uri))
    else:
        folder = Path(photos).expanduser()
        paths = sorted(path for path in _walk(folder) if is_photo(path.name))
        listing = [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in paths]
        digest = hashlib.sha256(json.dumps([str(folder.resolve()), listing]).encode()).hexdigest()[:16]
        uri = settings.s3(f"batch/{digest}/photos/")
        there = set(objects.keys(s3, uri))
        bucket, prefix = objects.split_uri(uri)
        for path, (name, _) in zip(paths, listing, strict=True):
            if name not in there:
                s3.upload_file(str(path), bucket, prefix + name)
        count = len(paths)
    if not count:
        raise ValueError(f"no photos at {photos!r}; give a folder or an s3:// prefix with photos in it")
    return {"photos_uri": uri, "photos": count}


def table(s3: Any, output_uri: str, table_uri: str) -> dict[str, Any]:
    """Gather a transform job's answers into one CSV. Returns `{"table_uri", "photos", "classes": {name: n}}`."""
    rows = list(rows_of(_answers(s3, output_uri)))
    bucket, key = objects.split_uri(table_uri)
    s3.put_object(Bucket=bucket, Key=key, Body=as_csv(rows).encode(), ContentType="text/csv")
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["class"]] = counts.get(row["class"], 0) + 1
    return {"table_uri": table_uri, "photos": len(rows), "classes": dict(sorted(counts.items()))}


def rows_of(answers: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[dict[str, Any]]:
    """One row per (photo, answer of the model server); see COLUMNS."""
    for photo, answer in answers:
        best = answer["predictions"][0]
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
        }


def as_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    """The rows with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _answers(s3: Any, output_uri: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for key in sorted(objects.keys(s3, output_uri)):
        if key.endswith(".out"):
            yield key.removesuffix(".out"), objects.read_json(s3, output_uri + key)


def _walk(folder: Path) -> Iterator[Path]:
    for root, _, files in os.walk(folder):
        yield from (Path(root, name) for name in files)
