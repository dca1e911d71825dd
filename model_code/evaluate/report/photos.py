"""Thumbnails of photos, embedded in a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable

from PIL import Image

from model_code.data.photos import PhotoError, decode
from model_code.evaluate.judging import Mistake

SIDE = 160


def thumbnails(mistakes: Iterable[Mistake]) -> dict[str, str]:
    """`data:` URIs of JPEGs whose shorter side is `SIDE`, by photo key; a photo that cannot be read is left out."""
    images: dict[str, str] = {}
    for mistake in mistakes:
        try:
            pixels = decode(mistake.photo, min_side=SIDE)
        except PhotoError:
            continue
        image = Image.fromarray(pixels)
        scale = min(1.0, SIDE / min(image.size))
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        stream = io.BytesIO()
        image.resize(size, Image.Resampling.LANCZOS).save(stream, "JPEG", quality=80)
        images[mistake.key] = f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
    return images
