"""Suspected wrong labels: out-of-fold class scores of every photo, from its embedding.

Photos are ranked by the calibrated log-odds of the best other class against the given label. cleanlab 2.9 (Apache-2.0)
ranks by the margin of probabilities, which saturate: with 5 % of 4,800 labels flipped at random that gives an AUROC of
0.967, the log-odds 0.996 (`benchmarks/data_check.py` prints both). It also brings pandas and scikit-learn into the
training image for what are two lines here, so it is not used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

SUSPECT_ODDS = 6.0
"""Log-odds (natural) from which a label is suspected: the other class is 400 times as likely.

With 5 % of 12,000 labels flipped: at random, 0.81 of the suspects are wrong and 0.94 of the wrong labels are suspected;
to one of the three most confused classes, 0.76 and 0.44.
"""
FOLDS = 5
_SHRINKAGE = 0.5
_CHUNK = 2048
_CALIBRATED_ON = 4_000
_NOISE = (1e-6, 0.01, 0.02, 0.04, 0.08, 0.16)

Rows = NDArray[np.float16] | NDArray[np.float32]
Integers = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Judged:
    """The evidence of the other photos about the label of each photo.

    Attributes:
        odds: Log-odds of the best other class against the given one, [photos]. NaN where the class has no other
            photo to compare with.
        suggestion: The best other class, [photos].
        beaten: beaten[a, b] is the number of photos of class a that look more like class b, [classes, classes].
        counts: Judged photos of each class, [classes].
        accuracy: Share of judged photos whose own class scores best.
    """

    odds: Floats
    suggestion: Integers
    beaten: Integers
    counts: Integers
    accuracy: float

    def suspects(self) -> Integers:
        """Return photos whose label is probably wrong, the surest first."""
        odds = np.nan_to_num(self.odds, nan=-np.inf)
        order = np.argsort(-odds, kind="stable")
        return order[odds[order] >= SUSPECT_ODDS]


def judge(rows: Rows, labels: Integers, classes: int, folds: int = FOLDS, seed: int = 0) -> Judged:
    """Judge every label by a linear discriminant that has not seen the photo.

    Args:
        rows: Embeddings [photos, dim].
        labels: [photos], 0 to classes - 1.
        classes: Number of classes.
        folds: Parts of the photos; each is judged by what the others taught.
        seed: Draws the folds, stratified by class.
    """
    fold = _folds(labels, folds, seed)
    center = rows.mean(axis=0, dtype=np.float32)
    parts = [
        _Moments.of(rows, labels, np.flatnonzero(fold == number), center, classes) for number in range(folds)
    ]
    whole = sum(parts[1:], parts[0])
    odds = np.full(len(rows), np.nan, np.float32)
    suggestion = np.zeros(len(rows), np.int64)
    beaten = np.zeros((classes, classes), np.int64)
    right = 0
    samples: list[tuple[Floats, Integers]] = []
    sampled = max(1, _CALIBRATED_ON // folds)
    for number in range(folds):
        taught = whole - parts[number]
        weights, bias = taught.discriminant()
        members = np.flatnonzero((fold == number) & (taught.counts[labels] > 0))
        for chosen in _chunks(members):
            scores = (rows[chosen].astype(np.float32) - center) @ weights + bias
            given = labels[chosen]
            at = np.arange(len(chosen))
            own = scores[at, given]
            np.add.at(beaten, given, scores > own[:, None])
            if sum(len(part) for _, part in samples) < sampled * (number + 1):
                samples.append((scores.copy(), given))
            scores[at, given] = -np.inf
            suggestion[chosen] = scores.argmax(axis=1)
            odds[chosen] = scores[at, suggestion[chosen]] - own
            right += int((odds[chosen] < 0).sum())
    judged = np.isfinite(odds)
    return Judged(
        odds=odds * _temperature(samples),
        suggestion=suggestion,
        beaten=beaten,
        counts=np.bincount(labels[judged], minlength=classes),
        accuracy=right / max(1, int(judged.sum())),
    )


@dataclass(frozen=True)
class _Moments:
    """Sums over some photos: of outer products [dim, dim], of embeddings by class [classes, dim], of photos [classes].

    Sums of different photos add up, so the moments without a fold cost a subtraction instead of another pass.
    """

    outer: Floats
    sums: Floats
    counts: Floats

    @classmethod
    def of(cls, rows: Rows, labels: Integers, chosen: Integers, center: Floats, classes: int) -> _Moments:
        width = rows.shape[1]
        outer, sums = np.zeros((width, width), np.float32), np.zeros((classes, width), np.float32)
        for part in _chunks(chosen):
            centered = rows[part].astype(np.float32) - center
            outer += centered.T @ centered
            order = np.argsort(labels[part], kind="stable")
            present, first = np.unique(labels[part][order], return_index=True)
            sums[present] += np.add.reduceat(centered[order], first, axis=0)
        counts = np.bincount(labels[chosen], minlength=classes).astype(np.float32)
        return cls(outer, sums, counts)

    def __add__(self, other: _Moments) -> _Moments:
        return _Moments(self.outer + other.outer, self.sums + other.sums, self.counts + other.counts)

    def __sub__(self, other: _Moments) -> _Moments:
        return _Moments(self.outer - other.outer, self.sums - other.sums, self.counts - other.counts)

    def discriminant(self) -> tuple[Floats, Floats]:
        """Weights [dim, classes] and bias [classes] of a linear discriminant with a shrunk common covariance."""
        known = self.counts > 0
        means = self.sums / np.maximum(self.counts, 1)[:, None]
        scatter = self.outer - (means * self.counts[:, None]).T @ means
        covariance = scatter * ((1 - _SHRINKAGE) / max(float(self.counts.sum()) - int(known.sum()), 1.0))
        spread = max(float(np.trace(covariance)) / len(covariance), 1e-12)
        covariance[np.diag_indices_from(covariance)] += spread * _SHRINKAGE / (1 - _SHRINKAGE)
        # numpy has no solver for positive definite matrices; a general one takes twice as long.
        factor = torch.linalg.cholesky(torch.from_numpy(covariance.astype(np.float32)))
        weights = torch.cholesky_solve(torch.from_numpy(means.T.copy()), factor).numpy()
        bias = np.where(known, -0.5 * (means.T * weights).sum(axis=0), -np.inf).astype(np.float32)
        return weights, bias


def _folds(labels: Integers, folds: int, seed: int) -> Integers:
    drawn = np.random.default_rng(seed).permutation(len(labels))
    by_class = drawn[np.argsort(labels[drawn], kind="stable")]
    fold = np.empty(len(labels), np.int64)
    fold[by_class] = np.arange(len(labels)) % folds
    return fold


def _chunks(chosen: Integers) -> Iterator[Integers]:
    return (chosen[start : start + _CHUNK] for start in range(0, len(chosen), _CHUNK))


def _temperature(samples: list[tuple[Floats, Integers]]) -> float:
    """Return the factor on scores under which their softmax is likeliest: discriminants are far too sure.

    A share of the labels, fitted too, is taken to say nothing. Without it, a few wrong labels in a data set that is
    otherwise clear cut would make every score look unsure, and hide themselves.
    """
    if not samples:
        return 1.0
    scores = np.concatenate([part for part, _ in samples])
    given = np.concatenate([part for _, part in samples])
    scores -= scores.max(axis=1, keepdims=True)
    own = scores[np.arange(len(scores)), given]

    def loss(factor: float) -> float:
        taught = np.exp(factor * own) / np.exp(factor * scores).sum(axis=1)
        return min(float(-np.log((1 - noise) * taught + noise / scores.shape[1]).mean()) for noise in _NOISE)

    return float(min(np.geomspace(0.01, 1, 21), key=loss))
