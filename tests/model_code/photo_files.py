"""Photos for tests: noise with a look of its own per seed, in any format."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

TWO_HALVES = Path(__file__).parent / "data" / "files" / "two-halves.heic"
"""A HEIC photo of 96 by 64 pixels: red on the left, blue on the right."""


def picture(seed: int, width: int = 64, height: int = 48) -> Image.Image:
    """Soft coloured clouds; pictures of different seeds have unrelated perceptual hashes."""
    clouds = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(clouds).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """The bytes of `image` as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(seed: int, width: int = 64, height: int = 48) -> bytes:
    """A JPEG of `picture`."""
    return encoded(picture(seed, width, height), quality=92)


def folder_of_photos(root: Path, classes: dict[str, int], first_seed: int = 0) -> Path:
    """Write a folder per class with that many photos, all different."""
    seed = first_seed
    for label, count in classes.items():
        (root / label).mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            (root / label / f"{seed:05d}.jpg").write_bytes(photo(seed))
            seed += 1
    return root
