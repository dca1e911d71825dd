"""Properties that tell a change of camera or client: how a photo looks to the network, how its file is made."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model_code.data.photos import Pixels

LOOKS: Final = ("brightness", "contrast", "sharpness")
FILES: Final = ("megapixels", "aspect", "bytes per pixel", "format")
_LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)


def looks(pixels: Pixels) -> NDArray[np.float32]:
    """Brightness and contrast in 0..1, and sharpness as the logarithm of the Laplacian's variance, of [h, w, 3]."""
    gray = pixels @ _LUMA
    edges = 4 * gray[1:-1, 1:-1] - gray[:-2, 1:-1] - gray[2:, 1:-1] - gray[1:-1, :-2] - gray[1:-1, 2:]
    sharpness = math.log1p(float(edges.var())) if edges.size else 0.0
    return np.array([gray.mean() / 255, gray.std() / 255, sharpness], np.float32)


def file_properties(height: int, width: int, size: int, photo_format: str) -> NDArray[np.float32]:
    """Megapixels, aspect, bytes per pixel (logarithms) and the format as a number, of a file of `size` bytes."""
    pixels = max(height * width, 1)
    return np.array(
        [
            math.log(pixels / 1e6),
            math.log(max(width, 1) / max(height, 1)),
            math.log(max(size, 1) / pixels),
            float(int.from_bytes(photo_format.encode()[:3], "big")),
        ],
        np.float32,
    )
