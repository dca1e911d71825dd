"""A classifier of one draw for the benchmark `watch`: photos to train on, for the reference, and of traffic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks._watch_data import SERVED, Embedded
from model_code.predict.calibration import fit_temperature, probabilities
from model_code.watch.drift import Photos
from model_code.watch.estimate import Basis
from model_code.watch.reference import SIMULATED

TRAIN, REFERENCE, TRAFFIC = 40, 20, 40
_SHRINK = 0.6
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class World:
    """Every photo under every shift, and its breed as a number."""

    shifts: Mapping[str, Embedded]
    faults: Mapping[str, Embedded]
    labels: NDArray[np.int64]
    breeds: int
    shifted: Rows


@dataclass(frozen=True)
class Draw:
    """A model, its reference and the photos of its traffic, as rows of the world."""

    world: World
    known: NDArray[np.int64]
    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    temperature: float
    reference: Rows
    traffic: Rows
    unknown: Rows
    class_of: NDArray[np.int64]

    @property
    def shiftable(self) -> Rows:
        """The traffic that is embedded under every shift."""
        return np.intersect1d(self.traffic, self.world.shifted)

    def logits(self, embeddings: NDArray[np.floating]) -> NDArray[np.float64]:
        """Logits [n, known classes]."""
        return embeddings @ self.weights + self.bias

    def photos(self, rows: Rows, shift: str = "none") -> Photos:
        """Return these photos as a look sees them under a shift."""
        embedded = self.world.shifts[shift]
        return self.seen(embedded, np.searchsorted(embedded.files, self.world.shifts["none"].files[rows]))

    def seen(self, embedded: Embedded, rows: Rows) -> Photos:
        """Return rows of a set as a look sees them."""
        embeddings = embedded.rows[rows]
        answers = probabilities(self.logits(embeddings), self.temperature).astype(np.float32)
        return Photos(embeddings, answers, embedded.looks[rows], np.empty((len(rows), 0), np.float32))

    def labels(self, rows: Rows) -> NDArray[np.int64]:
        """The model's class of each photo; -1 for one it was never taught."""
        return self.class_of[self.world.labels[rows]]

    def basis(self) -> Basis:
        """Return the reference's part that estimates of accuracy need."""
        photos, labels = self.photos(self.reference), self.labels(self.reference)
        pairs = [_confidence_and_accuracy(photos.probabilities, labels)]
        clean = {name: number for number, name in enumerate(self.world.shifts["none"].files.tolist())}
        members = set(self.reference.tolist())
        for embedded in self.world.faults.values():
            where = np.array([clean[name] for name in embedded.files.tolist()])
            rows = np.flatnonzero([number in members for number in where.tolist()])
            rows = np.random.default_rng(0).permutation(rows)[:SIMULATED]
            seen = self.seen(embedded, rows)
            pairs.append(_confidence_and_accuracy(seen.probabilities, self.labels(where[rows])))
        return Basis(photos.probabilities, labels, np.array(pairs))


_DRAWN: dict[tuple[int, int], Draw] = {}


def draw(world: World, seed: int, unknown: int = 0) -> Draw:
    """Draw photos and, if asked for, breeds to leave out, and fit a shrinkage LDA head on the rest; once per seed."""
    if (seed, unknown) not in _DRAWN:
        _DRAWN[seed, unknown] = _drawn(world, seed, unknown)
    return _DRAWN[seed, unknown]


def _drawn(world: World, seed: int, unknown: int) -> Draw:
    generator = np.random.default_rng([seed, unknown])
    left_out = np.sort(generator.choice(world.breeds, unknown, replace=False))
    known = np.setdiff1d(np.arange(world.breeds), left_out)
    parts: dict[str, list[int]] = {"train": [], "reference": [], "traffic": [], "unknown": []}
    for breed in range(world.breeds):
        all_rows = np.flatnonzero(world.labels == breed)  # by name, as the photos of each shift are
        traffic = generator.permutation(all_rows[:SERVED])[:TRAFFIC]
        rows = generator.permutation(np.setdiff1d(all_rows, traffic)).tolist()
        if breed in left_out:
            parts["unknown"] += traffic.tolist()
            continue
        parts["traffic"] += traffic.tolist()
        parts["train"] += rows[:TRAIN]
        parts["reference"] += rows[TRAIN : TRAIN + REFERENCE]
    class_of = np.full(world.breeds, -1)
    class_of[known] = np.arange(len(known))
    rows = {name: np.array(part, np.int64) for name, part in parts.items()}
    clean = world.shifts["none"].rows
    weights, bias = discriminant(clean[rows["train"]], class_of[world.labels[rows["train"]]])
    reference = rows["reference"]
    logits = clean[reference] @ weights + bias
    temperature = fit_temperature(logits, class_of[world.labels[reference]])
    return Draw(
        world, known, weights, bias, temperature, reference, rows["traffic"], rows["unknown"], class_of
    )


def discriminant(
    embeddings: NDArray[np.floating], labels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights [dim, classes] and bias [classes] of a linear discriminant with a shrunk covariance."""
    rows = embeddings.astype(np.float32)
    classes = int(labels.max()) + 1
    means = np.stack([rows[labels == label].mean(axis=0) for label in range(classes)])
    spread = rows - means[labels]
    covariance = (spread.T @ spread).astype(np.float64) / len(rows)
    ridge = _SHRINK * np.trace(covariance) / len(covariance)
    shrunk = (1 - _SHRINK) * covariance + ridge * np.eye(len(covariance))
    weights = np.linalg.solve(shrunk, means.T)
    # Scaled as logits of a trained head are: a temperature near 1 then calibrates them.
    scale = 0.1
    return weights * scale, -0.5 * scale * (means.T * weights).sum(axis=0)


def _confidence_and_accuracy(answers: NDArray[np.floating], labels: NDArray[np.int64]) -> tuple[float, float]:
    return float(answers.max(axis=1).mean()), float((answers.argmax(axis=1) == labels).mean())
