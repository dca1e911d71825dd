"""Scores of a classifier: accuracy, precision and recall, log loss, calibration, and their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_code.pages.charts import Bin
from model_code.predict.calibration import probabilities

Integers = NDArray[np.int64]
Reals = NDArray[np.float64]

UNKNOWN = -1
"""Label of a photo whose class the model does not know: every answer to it is wrong."""

TOP = 5
BINS = 15  # Guo et al. 2017
RESAMPLES = 2000
_SEED = 0
_Z = 1.959964  # two-sided 95 % quantile of the normal distribution
_LEAST_PROBABILITY = 1e-12  # an answer of exactly 0 would make every mean infinite


@dataclass(frozen=True)
class Outcomes:
    """The outcome of each photo, [photos] each: a few dozen bytes per photo, whatever the number of classes.

    Args:
        labels: true class, or `UNKNOWN`.
        predictions: most likely class.
        in_top: whether the true class is among the `TOP` likeliest.
        confidence: calibrated probability of the prediction.
        likelihood: calibrated probability of the true class; 0 where unknown.
        raw_confidence: probability of the prediction before temperature scaling.
    """

    labels: Integers
    predictions: Integers
    in_top: NDArray[np.bool_]
    confidence: Reals
    likelihood: Reals
    raw_confidence: Reals

    @classmethod
    def of(cls, logits: NDArray[np.floating], labels: Integers, temperature: float) -> Outcomes:
        """From logits [n, classes] before temperature and labels [n]."""
        calibrated = probabilities(logits, temperature)
        rows = np.arange(len(labels))
        known = labels != UNKNOWN
        own = np.where(known, logits[rows, labels], -np.inf)
        ahead = (logits > own[:, None]).sum(axis=1)
        predictions = logits.argmax(axis=1)
        return cls(
            labels=labels,
            predictions=predictions.astype(np.int64),
            in_top=known & (ahead < TOP),
            confidence=calibrated[rows, predictions],
            likelihood=np.where(known, calibrated[rows, labels], 0.0),
            raw_confidence=probabilities(logits)[rows, predictions],
        )

    @classmethod
    def join(cls, parts: Sequence[Outcomes]) -> Outcomes:
        """Concatenate the outcomes of several parts."""
        names = cls.__dataclass_fields__
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def hits(self) -> NDArray[np.bool_]:
        """True for each correct answer, [photos]."""
        return self.predictions == self.labels

    def log_loss(self) -> float:
        """Mean negative log-likelihood, over photos of known classes; not a number where there are none."""
        known = self.likelihood[self.labels != UNKNOWN]
        return float(np.log(1 / np.maximum(known, _LEAST_PROBABILITY)).mean()) if len(known) else float("nan")


def confusion(outcomes: Outcomes, classes: int) -> Integers:
    """Counts [classes + 1, classes]: row = true class (the last: `UNKNOWN`), column = prediction."""
    rows = np.where(outcomes.labels == UNKNOWN, classes, outcomes.labels)
    flat = np.bincount(rows * classes + outcomes.predictions, minlength=(classes + 1) * classes)
    return flat.reshape(classes + 1, classes)


@dataclass(frozen=True)
class ClassScores:
    """Precision, recall and F1 of each class, [classes] each; 0 where nothing was predicted or nothing was there."""

    photos: Integers
    precision: Reals
    recall: Reals
    f1: Reals

    def macro(self, values: Reals) -> float:
        """Mean of `values` over the classes that have photos; 0 where none has."""
        present = self.photos > 0
        return float(values[present].mean()) if present.any() else 0.0

    def weighted(self, values: Reals) -> float:
        """Mean of `values` over photos of known classes; 0 where there are none."""
        total = self.photos.sum()
        return float((values * self.photos).sum() / total) if total else 0.0

    def f_beta(self, beta: float) -> Reals:
        """F-score that weighs recall `beta` times precision."""
        square = beta**2
        return _ratio((1 + square) * self.precision * self.recall, square * self.precision + self.recall)


def class_scores(matrix: Integers) -> ClassScores:
    """From a `confusion`, or a stack of them [..., classes + 1, classes]."""
    known = matrix[..., :-1, :]
    right = np.diagonal(known, axis1=-2, axis2=-1).astype(np.float64)
    photos = known.sum(axis=-1)
    precision = _ratio(right, matrix.sum(axis=-2))
    recall = _ratio(right, photos)
    return ClassScores(photos, precision, recall, _ratio(2 * precision * recall, precision + recall))


def _ratio(above: NDArray[np.number], below: NDArray[np.number]) -> Reals:
    return np.divide(above, below, out=np.zeros(np.shape(above), np.float64), where=below > 0)


def most_confused(matrix: Integers, count: int) -> list[tuple[int, int, int]]:
    """Return the `count` most common mistakes as (true class, prediction, photos), most common first."""
    mistakes = matrix[:-1].copy()
    np.fill_diagonal(mistakes, 0)
    flat = mistakes.reshape(-1)
    order = np.argsort(-flat, kind="stable")[:count]
    width = mistakes.shape[1]
    return [(int(at // width), int(at % width), int(flat[at])) for at in order if flat[at]]


def reliability(confidence: Reals, hits: NDArray[np.bool_], bins: int = BINS) -> list[Bin]:
    """Answers grouped into `bins` equal ranges of confidence; empty ranges have 0 photos."""
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    photos = np.bincount(place, minlength=bins)
    sure = _ratio(np.bincount(place, confidence, bins), photos)
    right = _ratio(np.bincount(place, hits, bins), photos)
    return [
        Bin(n / bins, (n + 1) / bins, int(photos[n]), float(sure[n]), float(right[n])) for n in range(bins)
    ]


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error: mean |confidence - accuracy| over photos (Naeini et al. 2015)."""
    photos = sum(part.photos for part in bins)
    gaps = sum(part.photos * abs(part.confidence - part.accuracy) for part in bins)
    return gaps / photos if photos else float("nan")


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval, and the standard deviation of the estimate."""

    low: float
    high: float
    deviation: float


def accuracy_interval(hits: NDArray[np.bool_]) -> Interval:
    """Return the score interval of an accuracy (Wilson 1927; Brown, Cai and DasGupta 2001).

    Unlike a bootstrap interval it has a width if every answer is right, or wrong.
    """
    photos, mean = len(hits), float(hits.mean())
    center, scale = mean + _Z**2 / (2 * photos), 1 + _Z**2 / photos
    reach = _Z * np.sqrt(mean * (1 - mean) / photos + (_Z / (2 * photos)) ** 2)
    low, high = max(0.0, (center - reach) / scale), min(1.0, (center + reach) / scale)
    return Interval(float(low), float(high), float(np.sqrt(mean * (1 - mean) / photos)))


def macro_f1_interval(matrix: Integers) -> Interval:
    """Return the percentile bootstrap of the macro F1 (Efron and Tibshirani 1993).

    Resampling photos is drawing the confusion's cells from a multinomial distribution. Resamples without a photo of a
    known class have no macro F1 and are left out.
    """
    if not matrix[:-1].any():
        return Interval(0.0, 0.0, 0.0)
    cells = np.flatnonzero(matrix)
    counts = matrix.reshape(-1)[cells]
    generator = np.random.default_rng(_SEED)
    draws = generator.multinomial(counts.sum(), counts / counts.sum(), size=RESAMPLES)
    found = np.array([_macro_f1(cells, draw, matrix.shape[1]) for draw in draws])
    low, high = np.nanquantile(found, [0.025, 0.975])
    return Interval(float(low), float(high), float(np.nanstd(found)))


def _macro_f1(cells: Integers, counts: Integers, classes: int) -> float:
    row, column = cells // classes, cells % classes
    known = row < classes
    photos = np.bincount(row[known], counts[known], classes)
    predicted = np.bincount(column, counts, classes)
    right = np.bincount(row[row == column], counts[row == column], classes)
    # 2 right / (photos + predicted) is F1 without the detour over precision and recall.
    scores = _ratio(2 * right, photos + predicted)
    present = photos > 0
    return float(scores[present].mean()) if present.any() else float("nan")


@dataclass(frozen=True)
class Difference:
    """Accuracy of one model less another's on the same photos, with its 95 % paired interval."""

    photos: int
    mean: float
    interval: Interval


def paired_difference(hits: NDArray[np.bool_], other: NDArray[np.bool_]) -> Difference:
    """Return the adjusted Wald interval of paired proportions (Bonett and Price 2012).

    It adds one discordant photo to either side, so it has a width even if the two models never differ.

    Raises:
        ValueError: There are no photos.
    """
    photos = len(hits)
    if not photos:
        raise ValueError("the two models have no test photo in common: evaluate both on the same test split")
    gained, lost = int((hits & ~other).sum()), int((other & ~hits).sum())
    mean = (gained - lost) / photos
    apart, either = (gained - lost) / (photos + 2), (gained + lost + 2) / (photos + 2)
    deviation = float(np.sqrt((either - apart**2) / (photos + 2)))
    low, high = max(-1.0, apart - _Z * deviation), min(1.0, apart + _Z * deviation)
    return Difference(photos, mean, Interval(low, high, deviation))
