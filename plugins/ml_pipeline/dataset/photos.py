"""Look at a folder of photos, local or in S3, without opening the photos."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from ml_pipeline.aws.clients import Client
from ml_pipeline.dataset.sources import source_of

# What `model_code.data.versions.store.check_name` accepts.
_LONGEST_NAME = 40


def dataset_name_of(data: str) -> str:
    """Name a data set after its photos: the last part of the folder or prefix, in the characters that AWS names allow.

    Raises:
        ValueError: `data` is empty.
    """
    if not data.strip():
        raise ValueError(
            "`data` is empty: give a folder or an s3:// prefix with one folder of photos per class; for scheduled "
            "runs, in ML_PIPELINE_DEFAULTS"
        )
    last = data.rstrip("/").removeprefix("s3://").rpartition("/")[2]
    if last in ("", ".", "..", "~"):
        last = Path(data).expanduser().resolve().name
    last = re.sub(r"\.(csv|tsv|jsonl?|ndjson|manifest)$", "", last.lower())
    return re.sub("[^a-z0-9]+", "-", last).strip("-")[:_LONGEST_NAME].rstrip("-") or "photos"


def count_photos(data: str, s3: Client) -> tuple[int, int]:
    """Return the number of files below the class folders that may be photos by their names, and their bytes.

    Nothing is opened.
    """
    from model_code.data.limits import has_no_ending, has_photo_ending
    from model_code.data.tables import is_table

    every, count, size = is_table(data), 0, 0
    for candidate in source_of(s3, data).candidates():
        if every or has_photo_ending(candidate.path) or has_no_ending(candidate.path):
            count, size = count + 1, size + candidate.bytes
    return count, size


def classes_at(data: str, s3: Client, samples: int) -> dict[str, list[str]]:
    """Return up to `samples` paths of photos by class."""
    found: dict[str, list[str]] = {}
    for candidate in source_of(s3, data).candidates():
        paths = found.setdefault(candidate.label, [])
        if len(paths) < samples:
            paths.append(candidate.path)
    return found


def sha256_of(data: str, path: str, s3: Client) -> str:
    """Return the SHA-256 of one photo of `data`."""
    return hashlib.sha256(source_of(s3, data).read(path)).hexdigest()
