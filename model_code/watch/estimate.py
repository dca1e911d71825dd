"""Estimate the accuracy of a model on photos without labels, with an interval.

A calibrated model is right about as often as it is confident, so the fall of the mean confidence since the reference is
the fall of the accuracy (Guillory et al. 2021, arXiv:2107.03315). On photos of a worse camera, accuracy falls somewhat
more than confidence does; how much more is measured on the reference's own photos with faults put on (`simulated`).
Photos of classes that the model was never taught break every such estimate: read it with the share of unknown photos.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Labels = NDArray[np.integer]

LEAST_OF_CLASS: Final = 20
"""Photos answered with a class, below which nothing is said about that class alone."""
_Z: Final = 1.96


@dataclass(frozen=True)
class Estimate:
    """An accuracy in 0..1 with an interval that holds the truth about 19 times in 20."""

    accuracy: float
    low: float
    high: float
    photos: int


@dataclass(frozen=True)
class Basis:
    """The model's confidence on photos whose class is known.

    Args:
        probabilities: Of the reference, [m, classes].
        labels: Its classes, [m].
        simulated: Mean confidence and accuracy on reference photos with simulated faults, a row per fault, and in the
            first row without any: [1 + faults, 2].
    """

    probabilities: Floats
    labels: Labels
    simulated: Floats

    @property
    def hits(self) -> NDArray[np.bool_]:
        """Reference photos answered rightly."""
        return np.asarray(self.probabilities.argmax(axis=1) == self.labels)

    def slope(self) -> tuple[float, float]:
        """Return the fall of accuracy per fall of confidence, and its standard error for one more fault."""
        if len(self.simulated) < 3:
            return 1.0, 0.5
        falls = self.simulated[1:] - self.simulated[0]
        falls = falls[np.abs(falls[:, 0]) > 0.01]
        if len(falls) < 2:
            return 1.0, 0.5
        slopes = falls[:, 1] / falls[:, 0]
        # The typical ratio of a few faults, and how far one more is from it.
        return float(slopes.mean()), float(slopes.std(ddof=1) * np.sqrt(1 + 1 / len(slopes)))


def estimate(basis: Basis, probabilities: Floats) -> Estimate:
    """Accuracy on photos with these calibrated probabilities [n, classes], n at least 1."""
    ours, theirs = basis.probabilities.max(axis=1), probabilities.max(axis=1)
    hits = basis.hits
    slope, doubt = basis.slope()
    fall = float(theirs.mean() - ours.mean())
    # Where confidence has risen, nothing was simulated: a mix of easier classes, which confidence follows one to one.
    factor = slope if fall < 0 else 1.0
    accuracy = float(hits.mean() + factor * fall)
    variance = (
        factor**2 * float(theirs.var()) / len(theirs)
        + float((hits - ours).var()) / len(ours)
        + (doubt * fall) ** 2
        + _mix_variance(basis, probabilities)
    )
    half = _Z * float(np.sqrt(variance))
    return Estimate(
        float(np.clip(accuracy, 0, 1)),
        float(np.clip(accuracy - half, 0, 1)),
        float(np.clip(accuracy + half, 0, 1)),
        len(theirs),
    )


def per_class(basis: Basis, probabilities: Floats) -> dict[int, Estimate]:
    """Return the same of the photos answered with each class that has enough: its precision."""
    answers = probabilities.argmax(axis=1)
    whole = estimate(basis, probabilities)
    lift = whole.accuracy - float(probabilities.max(axis=1).mean())
    widths = (whole.high - whole.low) / 2
    estimates = {}
    for label in np.flatnonzero(
        np.bincount(answers, minlength=probabilities.shape[1]) >= LEAST_OF_CLASS
    ).tolist():
        own = probabilities[answers == label].max(axis=1)
        accuracy = float(np.clip(own.mean() + lift, 0, 1))
        half = float(np.hypot(widths, _Z * np.sqrt(accuracy * (1 - accuracy) / len(own))))
        estimates[label] = Estimate(accuracy, max(0.0, accuracy - half), min(1.0, accuracy + half), len(own))
    return estimates


def true_accuracy(right: int, photos: int) -> Estimate | None:
    """Accuracy where the truth came back, with Wilson's interval; None without photos."""
    if photos == 0:
        return None
    share, square = right / photos, _Z**2
    middle = (share + square / (2 * photos)) / (1 + square / photos)
    half = (
        _Z / (1 + square / photos) * float(np.sqrt(share * (1 - share) / photos + square / (4 * photos**2)))
    )
    return Estimate(share, middle - half, middle + half, photos)


def _mix_variance(basis: Basis, probabilities: Floats) -> float:
    """Of the gap between confidence and accuracy when the window's mix of classes is not the reference's.

    The gap differs from class to class; weighting classes otherwise moves its mean. How much it differs is estimated
    from the reference, less what so few photos per class differ by chance.
    """
    classes = probabilities.shape[1]
    answers = basis.probabilities.argmax(axis=1)
    gaps = basis.hits - basis.probabilities.max(axis=1)
    counts = np.bincount(answers, minlength=classes)
    seen = counts >= 2
    if seen.sum() < 2:
        return 0.0
    means = np.bincount(answers, gaps, classes)[seen] / counts[seen]
    squares = np.bincount(answers, gaps**2, classes)[seen] / counts[seen]
    within = np.maximum(squares - means**2, 0) * counts[seen] / (counts[seen] - 1)
    between = max(0.0, float(means.var(ddof=1) - (within / counts[seen]).mean()))
    ours = counts / counts.sum()
    theirs = probabilities.mean(axis=0)
    return between * float(((ours - theirs) ** 2).sum())
