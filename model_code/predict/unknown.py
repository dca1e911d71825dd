"""Answers that say "I don't know": a score of how unlike every class a photo is, and sets of classes.

Both are fitted on the probabilities of photos that the model was not trained on, as its temperature is, and cost a
server no forward pass. The score combines the shape of the probabilities (entropy, margins) with distances to the
classes' mean log-probabilities, relative to the distance to the mean of all (Ren et al. 2021, arXiv:2106.09022). Its
weights come from the held-out photos themselves: each is taken once as it is, and once as if its own class had never
been taught.

Measured on stanford-dogs with 20 of 120 breeds left out, mobilenet_v2 (benchmark `watch`): the confidence alone tells
unknown breeds from known ones with an AUROC of 0.72, the relative distance alone 0.78, the combination 0.78; photos of
other things 0.99 and more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

Floats = NDArray[np.floating]
Labels = NDArray[np.integer]

SCHEMA_VERSION: Final = 1
UNKNOWN = "unknown.safetensors"
"""Its file in a bundle."""
LEAST_CLASSES: Final = 3
LEAST_PHOTOS: Final = 30
FLAGGED: Final = 0.95
"""Share of known photos that are not flagged."""
COVERAGE: Final = 0.9
_QUANTILES: Final = 101
_SHRINK: Final = 0.1
_TINY: Final = 1e-6
_LEAST_PROBABILITY: Final = 1e-12


@dataclass(frozen=True)
class Unknown:
    """A fitted score.

    Args:
        means: Mean log-probabilities of each class, centered per photo, [classes, classes].
        within, total: Whitening of the spread within classes and of all photos, [classes, classes] each.
        center: Mean of all, [classes].
        weights: Of the standardized evidence, its mean, its deviation: [3, evidence].
        quantiles: Raw scores of known photos at 101 even ranks, [101].
        least: Probability from which a class belongs to the conformal set at 90 %; 0: too few photos to say.
    """

    means: NDArray[np.float32]
    within: NDArray[np.float32]
    total: NDArray[np.float32]
    center: NDArray[np.float32]
    weights: NDArray[np.float32]
    quantiles: NDArray[np.float32]
    least: float

    def __post_init__(self) -> None:
        classes = len(self.center)
        square = (classes, classes)
        if any(part.shape != square for part in (self.means, self.within, self.total)):
            raise ValueError(f"the unknown score does not fit {classes} classes: export the model again")
        if self.weights.shape[0] != 3 or len(self.quantiles) < 2:
            raise ValueError("the unknown score is malformed: export the model again")

    @property
    def classes(self) -> int:
        """Classes that the score was fitted for."""
        return len(self.center)

    def score(self, probabilities: Floats) -> NDArray[np.float32]:
        """Return the share of known photos that look more familiar than each of these, from 0 to 1, [n].

        Args:
            probabilities: Calibrated, [n, classes].
        """
        logs = _logs(probabilities)
        weights, offset = self._line
        raw = _evidence(logs, *self._space.distances(logs)) @ weights - offset
        return np.interp(raw, self.quantiles, self._ranks).astype(np.float32)

    def flags(self, scores: Floats) -> NDArray[np.bool_]:
        """Return photos better treated as unknown: one in twenty of the known ones is among them."""
        return np.asarray(scores) > FLAGGED

    @cached_property
    def _space(self) -> _Space:
        return _Space(self.means, self.within, self.total, self.center)

    @cached_property
    def _line(self) -> tuple[NDArray[np.float64], float]:
        """Weights of the evidence as it is, and what to take off their sum."""
        weights, mean, deviation = self.weights.astype(np.float64)
        return weights / deviation, float(mean / deviation @ weights)

    @cached_property
    def _ranks(self) -> NDArray[np.float64]:
        return np.linspace(0, 1, len(self.quantiles))

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """Arrays for a safetensors file; `from_tensors` gives back an equal score."""
        names = ("means", "within", "total", "center", "weights", "quantiles")
        return {
            "least": np.array([self.least], np.float32),
            # safetensors writes memory in its own layout: a transposed view would come back as another array.
            **{name: np.ascontiguousarray(getattr(self, name)) for name in names},
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Any]) -> Unknown:
        """Inverse of `tensors`.

        Raises:
            ValueError: Shapes that do not belong together.
            KeyError: An array is missing.
        """
        return cls(
            means=tensors["means"],
            within=tensors["within"],
            total=tensors["total"],
            center=tensors["center"],
            weights=tensors["weights"],
            quantiles=tensors["quantiles"],
            least=float(tensors["least"][0]),
        )


def fit_unknown(probabilities: Floats, labels: Labels) -> Unknown | None:
    """Fit the score on photos that the model was not trained on; None where there are too few of them, or of classes.

    Args:
        probabilities: Calibrated, [n, classes].
        labels: Their classes, [n].
    """
    classes = probabilities.shape[1]
    if classes < LEAST_CLASSES or len(labels) < max(LEAST_PHOTOS, classes):
        return None
    scaled = _logs(probabilities)
    centered = scaled - scaled.mean(axis=1, keepdims=True)
    counts = np.bincount(labels, minlength=classes)
    overall = centered.mean(axis=0)
    # A class with few photos leans on what its logit alone says: its mean is drawn to that of all photos.
    sums = np.zeros((classes, classes))
    np.add.at(sums, labels, centered)
    means = (sums + overall) / (counts[:, None] + 1)
    within = _whitening((centered - means[labels]).T @ (centered - means[labels]) / len(labels))
    total = _whitening(np.cov(centered.T))
    near, far = _Space(means, within, total, overall).distances(scaled)
    rows = np.arange(len(labels))
    # A photo's distance to a mean that it is part of is too small: undo its own share.
    near[rows, labels] *= ((counts[labels] + 1) / np.maximum(counts[labels], 1)) ** 2
    others = np.ones(scaled.shape, bool)
    others[rows, labels] = False
    shape = (len(labels), classes - 1)
    known = _evidence(scaled, near, far)
    untaught = _evidence(scaled[others].reshape(shape), near[others].reshape(shape), far)
    weights, mean, deviation = _logistic(known, untaught)
    raw = (known - mean) / deviation @ weights
    quantiles = np.maximum.accumulate(np.quantile(raw, np.linspace(0, 1, _QUANTILES)))
    single = np.float32
    return Unknown(
        means=means.astype(single),
        within=within.astype(single),
        total=total.astype(single),
        center=overall.astype(single),
        weights=np.stack([weights, mean, deviation]).astype(single),
        quantiles=quantiles.astype(single),
        least=fit_conformal(probabilities, labels) or 0.0,
    )


def fit_conformal(probabilities: Floats, labels: Labels, coverage: float = COVERAGE) -> float | None:
    """Least probability of a class in a conformal set; sets hold the true class at least `coverage` of the time.

    LAC (Sadinle et al. 2019, JASA 114): of n held-out photos, the ceil((n + 1) coverage)-th largest loss. None where
    too few photos can say.

    Args:
        probabilities: Calibrated, of photos the model was not trained on, [n, classes].
        labels: Their classes, [n].
        coverage: The share of photos whose set holds the true class.
    """
    count = len(labels)
    rank = int(np.ceil((count + 1) * coverage))
    if rank > count:
        return None
    likelihood = np.sort(probabilities[np.arange(count), labels])[::-1]
    return float(likelihood[rank - 1])


def conformal_sets(probabilities: Floats, least: float) -> NDArray[np.bool_]:
    """Membership [n, classes] of sets of classes; the likeliest class is always a member."""
    members = np.asarray(probabilities >= least)
    members[np.arange(len(members)), probabilities.argmax(axis=1)] = True
    return members


def _logs(probabilities: Floats) -> NDArray[np.float64]:
    # Logits over the temperature, but for a constant per photo, of which nothing here depends.
    return np.log(np.asarray(probabilities, np.float64) + _LEAST_PROBABILITY)


class _Space:
    """Squared Mahalanobis distances of log-probabilities; computes once what does not depend on the photos."""

    def __init__(self, means: Floats, within: Floats, total: Floats, center: Floats) -> None:
        within, total = within.astype(np.float64), total.astype(np.float64)
        targets = means.astype(np.float64) @ within
        self._classes = len(targets)
        # One product for all three: the call costs more than the arithmetic.
        self._maps = np.concatenate([within, -2 * within @ targets.T, total], axis=1)
        self._squares, self._origin = (targets**2).sum(axis=1), center.astype(np.float64) @ total

    def distances(self, scaled: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return distances of [n, classes] to each class, [n, classes], and to the mean of all, [n]."""
        mapped = (scaled - scaled.mean(axis=1, keepdims=True)) @ self._maps
        rows, near = mapped[:, : self._classes], mapped[:, self._classes : 2 * self._classes]
        near += self._squares
        near += np.einsum("ij,ij->i", rows, rows)[:, None]
        far = mapped[:, 2 * self._classes :] - self._origin
        return np.maximum(near, 0.0), np.einsum("ij,ij->i", far, far)


def _evidence(scaled: Floats, near: Floats, far: Floats) -> NDArray[np.float64]:
    """Compute the features that tell known from unknown photos, [n, 10]."""
    classes = scaled.shape[1]
    ordered = np.sort(scaled, axis=1)
    top = ordered[:, -1]
    below = ordered - top[:, None]
    exponentials = np.exp(below)
    mass = exponentials.sum(axis=1)
    nearest = np.partition(near, 1, axis=1)
    found = np.empty((len(scaled), 10))
    found[:, 0] = -np.log(mass)
    found[:, 1] = np.log1p(_TINY - 1 / mass)
    found[:, 2] = np.einsum("ij,ij->i", exponentials, below) / -mass - found[:, 0]
    found[:, 3] = -below[:, -2]
    found[:, 4] = below[:, -min(6, classes) : -1].sum(axis=1) / -(min(6, classes) - 1)
    found[:, 5] = below.sum(axis=1) / -classes
    found[:, 6] = nearest[:, 0]
    found[:, 7] = nearest[:, 0] - far
    found[:, 8] = nearest[:, 1] - nearest[:, 0]
    found[:, 9] = far
    return found


def _whitening(covariance: Floats) -> NDArray[np.float64]:
    size = len(covariance)
    spread = float(np.trace(covariance)) / size or 1.0
    shrunk = (1 - _SHRINK) * covariance + _SHRINK * spread * np.eye(size)
    return np.asarray(np.linalg.inv(np.linalg.cholesky(shrunk)).T)


def _logistic(
    negative: Floats, positive: Floats, penalty: float = 0.01, steps: int = 25
) -> tuple[Any, Any, Any]:
    """Weights of a ridge logistic regression by Newton's method, and the mean and deviation of what they weigh."""
    rows = np.concatenate([negative, positive])
    mean, deviation = rows.mean(axis=0), rows.std(axis=0) + _TINY
    design = np.column_stack([(rows - mean) / deviation, np.ones(len(rows))])
    wanted = np.repeat([0.0, 1.0], [len(negative), len(positive)])
    ridge = penalty * len(rows) * np.eye(design.shape[1])
    ridge[-1, -1] = _TINY
    weights = np.zeros(design.shape[1])
    for _ in range(steps):
        odds = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        gradient = design.T @ (odds - wanted) + ridge @ weights
        curvature = (design * (odds * (1 - odds))[:, None]).T @ design + ridge
        step = np.linalg.solve(curvature, gradient)
        weights -= step
        if np.abs(step).max() < 1e-8:
            break
    return weights[:-1], mean, deviation


def save(unknown: Unknown, path: Path) -> None:
    """Write the score as a safetensors file."""
    save_file(unknown.tensors(), path, metadata={"schema_version": str(SCHEMA_VERSION)})


def load(path: Path) -> Unknown | None:
    """Return the score of a bundle; None where an older release exported it without one.

    Raises:
        ValueError: Written by a newer release, or damaged.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            version = int((file.metadata() or {}).get("schema_version", 0))
            if version > SCHEMA_VERSION:
                raise ValueError(
                    f"{path} has schema_version {version}, this release reads up to {SCHEMA_VERSION}: "
                    "update ml-pipeline"
                )
            return Unknown.from_tensors({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (KeyError, SafetensorError) as error:
        raise ValueError(f"{path} is damaged ({error}): download or export the model again") from error
