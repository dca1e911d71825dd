"""Count photos by their names, before anything is read."""

from __future__ import annotations

import os
from typing import Any

from ml_pipeline.aws import s3 as objects


def count_photos(data: str, s3: Any) -> int:
    """Estimate the number of photos below a folder or an s3:// prefix, or in a table, without opening a photo."""
    if data.startswith("s3://"):
        names = objects.keys(s3, data.rstrip("/") + "/")
        return sum(is_photo(name) for name in names)
    return sum(is_photo(name) for _, _, files in os.walk(os.path.expanduser(data)) for name in files)


def is_photo(name: str) -> bool:
    """Tell whether a file or key may be a photo: it has the ending of one, or none at all."""
    from model_code.data.limits import has_no_ending, has_photo_ending

    return has_photo_ending(name) or has_no_ending(name)
