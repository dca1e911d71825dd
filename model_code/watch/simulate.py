"""Faults put on reference photos, to measure how far accuracy falls when confidence does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from PIL import Image

from model_code.data.photos import Pixels

Fault = Callable[[Pixels, np.random.Generator], Pixels]


def _noise(pixels: Pixels, draw: np.random.Generator) -> Pixels:
    noisy = pixels.astype(np.float32) + draw.normal(0, 30, pixels.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _haze(pixels: Pixels, draw: np.random.Generator) -> Pixels:
    gray = float((pixels @ np.array([0.299, 0.587, 0.114])).mean())
    return np.clip(gray + 0.35 * (pixels.astype(np.float32) - gray) + 0.5, 0, 255).astype(np.uint8)


def _coarse(pixels: Pixels, draw: np.random.Generator) -> Pixels:
    height, width = pixels.shape[:2]
    small = Image.fromarray(pixels).resize((max(1, width // 4), max(1, height // 4)), Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.NEAREST))


FAULTS: Final[Mapping[str, Fault]] = {"noise": _noise, "contrast": _haze, "pixel": _coarse}
"""Sensor noise, haze, and a picture enlarged from a quarter of its side."""
