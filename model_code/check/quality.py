"""Photos that are hard to learn from: blurred, dark, bright, empty, of odd shape or odd size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model_code.data.photos import decode, size

_SIDE = 224
"""Shorter side at which blur is judged: what a network never sees does not count against a photo."""
# Calibrated on 12,000 dog photos; the tests hold copies of a photo on both sides of each limit.
_BLURRED = 0.012
_DARK = 90.0
_BRIGHT = 120.0
_INFORMATION = 4.0
_ASPECT = 3.0
_SIZE = 5.0
_TINY = 64


class Fault(StrEnum):
    """Reasons to look at a photo."""

    BLURRED = "blurred"
    DARK = "dark"
    BRIGHT = "bright"
    LOW_INFORMATION = "low_information"
    ODD_ASPECT = "odd_aspect"
    ODD_SIZE = "odd_size"


@dataclass(frozen=True)
class Look:
    """Measurements of one photo.

    Attributes:
        height: In pixels, as stored.
        width: In pixels, as stored.
        sharpness: Variance of the Laplacian over the variance of the luminance, at `_SIDE` pixels.
        shadows: 1st percentile of the luminance, 0 to 255.
        highlights: 99th percentile of the luminance, 0 to 255.
        entropy: Of the luminance's histogram, in bits, 0 to 8.
    """

    height: int
    width: int
    sharpness: float
    shadows: float
    highlights: float
    entropy: float

    @property
    def aspect(self) -> float:
        """Longer side over shorter side."""
        return max(self.height, self.width) / max(1, min(self.height, self.width))


def look(data: bytes) -> Look:
    """Measure a photo.

    Raises:
        PhotoError: It cannot be decoded.
    """
    height, width = size(data)
    image = Image.fromarray(decode(data, min_side=_SIDE))
    scale = _SIDE / min(image.size)
    if scale < 1:
        across, down = (max(1, round(side * scale)) for side in image.size)
        image = image.resize((across, down), Image.Resampling.BOX)
    luma = np.asarray(image.convert("L"), np.float32)
    histogram = np.bincount(luma.astype(np.uint8).reshape(-1), minlength=256) / luma.size
    cumulated = histogram.cumsum()
    filled = histogram[histogram > 0]
    return Look(
        height,
        width,
        _sharpness(luma),
        float(np.searchsorted(cumulated, 0.01)),
        float(np.searchsorted(cumulated, 0.99)),
        float(-(filled * np.log2(filled)).sum()),
    )


def _sharpness(luma: NDArray[np.float32]) -> float:
    if min(luma.shape) < 3:
        return 0.0
    middle = luma[1:-1, 1:-1]
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * middle
    return float(laplacian.var() / max(1.0, middle.var()))


def faults(looks: Sequence[Look]) -> dict[Fault, NDArray[np.int64]]:
    """Return photos (indices into `looks`) with each fault, the worst first."""
    if not looks:
        return {fault: np.empty(0, np.int64) for fault in Fault}
    columns = {name: np.array([getattr(look, name) for look in looks], np.float64) for name in vars(looks[0])}
    aspect = np.array([look.aspect for look in looks])
    shorter = np.minimum(columns["height"], columns["width"])
    area = np.sqrt(columns["height"] * columns["width"])
    ratio = np.maximum(area / np.median(area), np.median(area) / np.maximum(area, 1))
    plain = columns["entropy"] < _INFORMATION
    badness = {
        # A plain picture has no edges to be sharp.
        Fault.BLURRED: np.where(plain, -1.0, _BLURRED - columns["sharpness"]),
        Fault.DARK: _DARK - columns["highlights"],
        Fault.BRIGHT: columns["shadows"] - _BRIGHT,
        Fault.LOW_INFORMATION: _INFORMATION - columns["entropy"],
        Fault.ODD_ASPECT: aspect - _ASPECT,
        Fault.ODD_SIZE: np.where(shorter < _TINY, _SIZE, 0.0) + ratio - _SIZE,
    }
    return {
        fault: np.array([at for at in np.argsort(-score, kind="stable") if score[at] > 0], np.int64)
        for fault, score in badness.items()
    }
