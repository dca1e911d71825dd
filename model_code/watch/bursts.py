"""Bursts: photos of one source moments apart say no more than one of them, and count once."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_ALONE: Final = 0.99
"""Share of reference photos that must not be taken for the burst of another one."""
_UNRELATED: Final = 0.9
"""The same share of a window's photos, for photos far apart: sources may come back."""
_LONGEST: Final = 25
"""Photos of one burst, about."""
_BLOCK: Final = 512


class Bursts:
    """Finds photos that are nearly the same, by the embeddings' similarity.

    Args:
        embeddings: Of the reference, [m, dim]; what counts as near is what hardly any two of these are.
    """

    def __init__(self, embeddings: NDArray[np.floating]) -> None:
        self._mean = embeddings.astype(np.float32).mean(axis=0)
        rows = self._directions(embeddings)
        nearest = np.concatenate([_nearest(rows, start) for start in range(0, len(rows), _BLOCK)])
        self.similarity = float(np.quantile(nearest, _ALONE)) if len(rows) > 1 else 1.0
        """Cosine from which two photos count as one."""

    def first_of_each(self, embeddings: NDArray[np.floating]) -> NDArray[np.int64]:
        """Return rows of the photos that count: the first of each burst, in order.

        A camera that fails makes all photos similar, and they are no burst. Photos far apart in the window do not
        belong together, so only a similarity that hardly any two of those reach counts as near.

        Args:
            embeddings: In the order of time, [n, dim].
        """
        rows = self._directions(embeddings)
        similarity = rows @ rows.T
        near = max(self.similarity, _far_apart(similarity))
        kept: list[int] = []
        for number, to_others in enumerate(similarity):
            if not kept or float(to_others[kept].max()) < near:
                kept.append(number)
        return np.array(kept, np.int64)

    def _directions(self, embeddings: NDArray[np.floating]) -> NDArray[np.float32]:
        rows = embeddings.astype(np.float32) - self._mean
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        return np.asarray(rows / np.where(length > 0, length, 1), np.float32)


def _far_apart(similarity: NDArray[np.float32]) -> float:
    """The similarity that hardly any photo has with one far from it in the order of time; -1 in a short window."""
    if len(similarity) <= 2 * _LONGEST:
        return -1.0
    place = np.arange(len(similarity))
    far = np.abs(place[:, None] - place) >= _LONGEST
    return float(np.quantile(similarity.max(axis=1, where=far, initial=-1.0), _UNRELATED))


def _nearest(rows: NDArray[np.float32], start: int) -> NDArray[np.float32]:
    block = rows[start : start + _BLOCK]
    similarity = block @ rows.T
    similarity[np.arange(len(block)), np.arange(start, start + len(block))] = -1
    return np.asarray(similarity.max(axis=1), np.float32)
