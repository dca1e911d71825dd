"""Compare a window of served photos with the reference: five tests that raise the alarm, one that is only shown.

- embedding: maximum mean discrepancy of the backbone's embeddings (Gretton et al. 2012). Sees whole shifts.
- probabilities: mean log-probabilities. Sees shifts that the head reacts to.
- classes: chi-square of the predicted classes. Sees another mix of classes.
- confidence: likeliest probability and entropy. Sees a part of the window that the model answers worse.
- photo: brightness, contrast and sharpness, by rank.
- file: size, aspect, compression and format of the files. Photos of a data set have often been resized, those of
  clients not: a difference is shown, and raises nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model_code.watch.two_sample import Block, Result, Rows, permutation_tests

ALARMING: Final = ("embedding", "probabilities", "classes", "confidence", "photo")
SHOWN: Final = ("file",)
_FREQUENCIES: Final = 128
_PAIRS: Final = 4000
_FLOOR: Final = 1e-4


@dataclass(frozen=True)
class Photos:
    """Features of photos that drift tests compare, a row each.

    Args:
        embeddings: [n, dim].
        probabilities: Calibrated, [n, classes].
        looks: Brightness, contrast, sharpness, [n, 3].
        files: See `model_code.watch.properties`, [n, properties]; no columns: not compared.
    """

    embeddings: NDArray[np.floating]
    probabilities: NDArray[np.floating]
    looks: NDArray[np.floating]
    files: NDArray[np.floating]

    def __len__(self) -> int:
        return len(self.embeddings)

    def take(self, rows: NDArray[np.integer]) -> Photos:
        """These photos, in this order."""
        return Photos(self.embeddings[rows], self.probabilities[rows], self.looks[rows], self.files[rows])


class Drift:
    """Tests windows against one reference, whose features are computed once.

    Args:
        reference: Photos that the model was not trained on.
    """

    def __init__(self, reference: Photos) -> None:
        if len(reference) < 2:
            raise ValueError(f"a reference needs photos to compare with, not {len(reference)}")
        self.reference = reference

    def test(self, window: Photos, level: float, seed: int = 0) -> dict[str, Result]:
        """Test a window.

        Args:
            window: Photos that do not depend on each other: a burst counts once (`model_code.watch.bursts`).
            level: Level of the alarm as a whole; each alarming test gets an equal part of it.
            seed: Draws the permutations.
        """
        ours, theirs = self.reference, window
        blocks = {
            "embedding": _plain(self._embedded, self._waves(theirs)),
            "probabilities": _spread(_logs(ours), _logs(theirs)),
            "classes": _counts(ours.probabilities, theirs.probabilities),
            "confidence": _spread(_confidence(ours), _confidence(theirs)),
            "photo": _ranks(ours.looks, theirs.looks),
        }
        if ours.files.shape[1]:
            blocks["file"] = _ranks(ours.files, theirs.files)
        return permutation_tests(blocks, level / len(ALARMING), seed)

    @cached_property
    def _kernel(self) -> tuple[Rows, Rows, Rows]:
        """Mean and deviation of the reference, and frequencies of a Gaussian kernel with the median distance."""
        rows = self.reference.embeddings.astype(np.float32)
        mean, deviation = rows.mean(axis=0), rows.std(axis=0)
        # A feature that hardly ever moves must not outweigh all others when it does.
        deviation = np.maximum(deviation, 0.01 * deviation.mean() + np.float32(1e-6))
        generator = np.random.default_rng(0)
        one, other = generator.integers(0, len(rows), (2, _PAIRS))
        apart = (((rows[one] - rows[other]) / deviation) ** 2).sum(axis=1)
        width = np.sqrt(np.median(apart[one != other])) or 1.0
        waves = generator.normal(size=(rows.shape[1], _FREQUENCIES)) / width
        return mean, deviation, waves.astype(np.float32)

    def _waves(self, photos: Photos) -> Rows:
        mean, deviation, waves = self._kernel
        angles = ((photos.embeddings.astype(np.float32) - mean) / deviation) @ waves
        return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)

    @cached_property
    def _embedded(self) -> Rows:
        return self._waves(self.reference)


def smallest(results: Mapping[str, Result]) -> float:
    """p-value of all alarming tests together (Bonferroni), at most 1."""
    return min(1.0, len(ALARMING) * min(results[name].p for name in ALARMING))


def _plain(ours: Rows, theirs: Rows) -> Block:
    return Block(ours, theirs, np.ones(ours.shape[1], np.float32))


def _spread(ours: Rows, theirs: Rows) -> Block:
    deviation = np.concatenate([ours, theirs]).std(axis=0)
    return Block(ours, theirs, np.where(deviation > 0, deviation, 1).astype(np.float32))


def _logs(photos: Photos) -> Rows:
    return np.log(photos.probabilities + _FLOOR).astype(np.float32)


def _counts(ours: NDArray[np.floating], theirs: NDArray[np.floating]) -> Block:
    """Predicted classes; divided by the root of their share, the squared distance is the chi-square statistic."""
    width = ours.shape[1]
    rows = [np.eye(width, dtype=np.float32)[side.argmax(axis=1)] for side in (ours, theirs)]
    share = np.concatenate(rows).mean(axis=0)
    return Block(rows[0], rows[1], np.where(share > 0, np.sqrt(share), 1).astype(np.float32))


def _confidence(photos: Photos) -> Rows:
    probabilities = photos.probabilities
    entropy = -(probabilities * np.log(probabilities + 1e-9)).sum(axis=1)
    return np.stack([probabilities.max(axis=1), entropy], axis=1).astype(np.float32)


def _ranks(ours: NDArray[np.floating], theirs: NDArray[np.floating]) -> Block:
    """Ranks and their squares: sees a property that moves, and one that spreads."""
    both = np.concatenate([ours, theirs])
    columns = [np.unique(column, return_inverse=True) for column in both.T]
    middles = [np.cumsum(counts := np.bincount(inverse)) - counts / 2 for _, inverse in columns]
    ranks = np.stack(
        [middle[inverse] / len(both) - 0.5 for middle, (_, inverse) in zip(middles, columns, strict=True)],
        axis=1,
    )
    features = np.concatenate([ranks, ranks**2], axis=1).astype(np.float32)
    return _spread(features[: len(ours)], features[len(ours) :])
