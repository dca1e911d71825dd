"""The order of a data set's photos: shuffled, and the same on any machine."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from model_code.data.versions.columns import BYTES, Digests, hex_of

_PART = 10_000


def order_of(digests: Digests, seed: int) -> NDArray[np.int64]:
    """Return the positions of photos in the order of SHA-256 of seed and photo: nothing else decides."""
    start = hashlib.sha256(f"{seed}:".encode())
    ranks = bytearray()
    for part in range(0, len(digests), _PART):
        for digest in digests[part : part + _PART].tolist():
            one = start.copy()
            one.update(hex_of(digest).encode())
            ranks += one.digest()
    return np.argsort(np.frombuffer(ranks, f"S{BYTES}"), kind="stable")
