"""Classes that are hard to learn or to judge, and photos unlike the rest of their class."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from model_code.check.labels import Integers, Judged, Rows

FEW = 20
"""Photos below which a class cannot be judged: of 2 test photos, one mistake is 50 points of recall."""
_INDISTINCT = 0.75
"""Accuracy between two classes alone up to which they cannot be told apart; guessing gives 0.5."""
_SURELY_BELOW = 0.85
_Z = 1.96
_UNLIKE = 5.0
_CHUNK = 4096


@dataclass(frozen=True)
class Indistinct:
    """Two classes by index, and how often a photo of either is recognized when only these two are possible."""

    left: int
    right: int
    accuracy: float
    photos: int


def indistinct(judged: Judged) -> list[Indistinct]:
    """Pairs of classes that the embeddings cannot tell apart, the closest first.

    Listed where the accuracy between the two is at most `_INDISTINCT`, and the upper end of its 95 % interval (Wald)
    at most `_SURELY_BELOW`, so that a pair of small classes is not listed by chance.
    """
    counts = np.maximum(judged.counts, 1)
    share = judged.beaten / counts[:, None]
    accuracy = 1 - (share + share.T) / 2
    found = []
    for left, right in np.argwhere(np.triu(accuracy <= _INDISTINCT, 1)).tolist():
        photos = int(judged.counts[left] + judged.counts[right])
        between = float(accuracy[left, right])
        if min(judged.counts[left], judged.counts[right]) == 0:
            continue
        if between + _Z * sqrt(max(between * (1 - between), 0.01) / photos) <= _SURELY_BELOW:
            found.append(Indistinct(left, right, between, photos))
    return sorted(found, key=lambda pair: (pair.accuracy, pair.left, pair.right))


def unlike(rows: Rows, labels: Integers, classes: int) -> tuple[Integers, NDArray[np.float64]]:
    """Return photos unlike the rest of their class, the oddest first, and the oddness of every photo.

    The cosine of a photo to the mean of the others of its class, in robust deviations (1.4826 times the median absolute
    deviation) below the median of its class. Classes with fewer than `FEW` photos have no spread to compare with: 0.
    """
    center = rows.mean(axis=0, dtype=np.float32)
    sums = np.zeros((classes, rows.shape[1]), np.float32)
    units = np.empty(rows.shape, np.float16)
    for start in range(0, len(rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        unit = rows[part].astype(np.float32) - center
        unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
        units[part] = unit
        np.add.at(sums, labels[part], unit)
    oddness = np.zeros(len(rows))
    for label in range(classes):
        members = np.flatnonzero(labels == label)
        if len(members) < FEW:
            continue
        own = units[members].astype(np.float32)
        others = sums[label] - own
        cosine = (own * others).sum(axis=1) / np.maximum(np.linalg.norm(others, axis=1), 1e-12)
        middle = float(np.median(cosine))
        deviation = 1.4826 * float(np.median(np.abs(cosine - middle)))
        oddness[members] = (middle - cosine) / max(deviation, 1e-3)
    order = np.argsort(-oddness, kind="stable")
    return order[oddness[order] >= _UNLIKE], oddness


def small(labels: Integers, classes: int) -> Integers:
    """Return classes with fewer than `FEW` photos, smallest first."""
    counts = np.bincount(labels, minlength=classes)
    order = np.argsort(counts, kind="stable")
    return order[counts[order] < FEW]
