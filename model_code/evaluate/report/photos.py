"""Thumbnails of photos, embedded in a page."""

from __future__ import annotations

from collections.abc import Iterable

from model_code.data.photos import PhotoError, thumbnail
from model_code.evaluate.judging import Mistake
from model_code.pages.markup import jpeg_uri

SIDE = 160


def thumbnails(mistakes: Iterable[Mistake]) -> dict[str, str]:
    """`data:` URIs of JPEGs whose shorter side is `SIDE`, by photo key; a photo that cannot be read is left out."""
    images: dict[str, str] = {}
    for mistake in mistakes:
        try:
            small = thumbnail(mistake.photo, SIDE)
        except PhotoError:
            continue
        images[mistake.key] = jpeg_uri(small)
    return images
