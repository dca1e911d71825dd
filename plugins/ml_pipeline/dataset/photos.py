"""Which files are photos, and how many there are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ml_pipeline.aws import s3 as objects

_PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


def count_photos(data: str, s3: Any) -> int:
    """Photos below a folder or an s3:// prefix, by their suffix; nothing is opened."""
    if data.startswith("s3://"):
        names = objects.keys(s3, data.rstrip("/") + "/")
        return sum(is_photo(name) for name in names)
    return sum(is_photo(name) for _, _, files in os.walk(os.path.expanduser(data)) for name in files)


def is_photo(name: str) -> bool:
    """Whether a file or key is a photo, by its ending."""
    return Path(name).suffix.lower() in _PHOTO_SUFFIXES
