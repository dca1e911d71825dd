"""Choose the few photos whose label is worth most: answered with doubt, of no known class, and unlike each other."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

_CANDIDATES: Final = 8
"""Times as many photos as wanted are looked at, the most doubtful ones."""


def doubt(probabilities: Floats) -> NDArray[np.float64]:
    """Return the model's doubt between its two best classes, from 0 (sure) to 1, [n]."""
    best = -np.partition(-probabilities.astype(np.float64), 1, axis=1)[:, :2]
    return np.asarray(1 - (best[:, 0] - best[:, 1]))


def choose(worth: Floats, embeddings: Floats, count: int) -> NDArray[np.int64]:
    """Return rows of at most `count` photos, the one most wanted first.

    Greedy: each next photo has the largest product of its worth and its distance from those chosen already, so that
    ten photos of one difficult scene do not take ten places.

    Args:
        worth: From 0 to 1, [n].
        embeddings: [n, dim].
        count: Largest number of rows to return.
    """
    candidates = np.argsort(-worth, kind="stable")[: _CANDIDATES * count]
    rows = embeddings[candidates].astype(np.float32)
    rows -= embeddings.astype(np.float32).mean(axis=0)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    value, apart = worth[candidates].astype(np.float64), np.ones(len(candidates))
    chosen: list[int] = []
    for _ in range(min(count, len(candidates))):
        best = int(np.argmax(value * apart))
        chosen.append(best)
        apart = np.minimum(apart, 1 - np.clip(rows @ rows[best], 0, 1))
        apart[best] = -1
    return candidates[chosen]
