"""Bursts: photos of one source moments apart say no more than one of them, and count once."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_ALONE: Final = 0.99
"""Share of reference photos that must not be taken for the burst of another one."""
_LONGEST: Final = 25
"""Photos of one burst, about."""
_RETURNS: Final = 3
"""Bursts of one source in a window; more similar photos are those of a camera that fails."""
_SPREAD: Final = 0.8
"""Share of the stretches that similar photos would reach by chance; from it on they count as spread."""
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

        A camera that fails makes many photos similar, and they are no burst: they are spread over the window, where
        those of one source are next to each other, also when it comes back.

        Args:
            embeddings: In the order of time, [n, dim].
        """
        rows = self._directions(embeddings)
        near = rows @ rows.T >= self.similarity
        np.fill_diagonal(near, False)
        faulty = _spread(near) | (near.sum(axis=1) > _RETURNS * _LONGEST)
        kept: list[int] = []
        for number, to_others in enumerate(near):
            if faulty[number] or not to_others[kept].any():
                kept.append(number)
        return np.array(kept, np.int64)

    def _directions(self, embeddings: NDArray[np.floating]) -> NDArray[np.float32]:
        rows = embeddings.astype(np.float32) - self._mean
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        return np.asarray(rows / np.where(length > 0, length, 1), np.float32)


def _spread(near: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell for each photo whether those near it lie all over the window; of a short window, that none do.

    k photos at random places reach B (1 - (1 - 1/B)^k) of B stretches on average.
    """
    count = len(near)
    if count <= 2 * _LONGEST:  # a burst may be all of it
        return np.zeros(count, np.bool_)
    stretches = max(4, count // _LONGEST)
    starts = np.arange(stretches) * count // stretches
    reached = (np.add.reduceat(near, starts, axis=1, dtype=np.int32) > 0).sum(axis=1)
    others = near.sum(axis=1)
    by_chance = stretches * (1 - (1 - 1 / stretches) ** others)
    # Four of a burst reach two stretches at most, fewer photos as many by chance.
    return np.asarray((others >= 4) & (reached >= _SPREAD * by_chance))


def _nearest(rows: NDArray[np.float32], start: int) -> NDArray[np.float32]:
    block = rows[start : start + _BLOCK]
    similarity = block @ rows.T
    similarity[np.arange(len(block)), np.arange(start, start + len(block))] = -1
    return np.asarray(similarity.max(axis=1), np.float32)
