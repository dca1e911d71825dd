"""Calibrated probabilities: temperature scaling, and the confidence below which to abstain."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Labels = NDArray[np.integer]

_GOLDEN: Final = (5**0.5 - 1) / 2
# If every held-out photo is classified correctly, the loss falls without end as the temperature does: without a
# floor, every answer would be certain. Networks that make mistakes stay far from both ends.
_TEMPERATURES: Final = (0.25, 50.0)
# Below this share of photos an accuracy is mostly chance.
_LEAST_COVERAGE: Final = 0.1


@dataclass(frozen=True)
class Calibration:
    """Mapping from a model's logits to probabilities.

    Args:
        temperature: Divides the logits before softmax.
        abstain_threshold: Answers whose probability is below this should not be trusted; 0 trusts all.
    """

    temperature: float = 1.0
    abstain_threshold: float = 0.0

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature} must be above 0")
        if not 0 <= self.abstain_threshold <= 1:
            raise ValueError(f"abstain_threshold={self.abstain_threshold} must be from 0 to 1")


def probabilities(logits: Floats, temperature: float = 1.0) -> NDArray[np.float64]:
    """Softmax of logits [n, classes] over a temperature, in double precision."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    exponentials = np.exp(scaled)
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def log_loss(logits: Floats, labels: Labels, temperature: float = 1.0) -> float:
    """Mean negative log-likelihood of labels [n] under logits [n, classes] over a temperature."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    likelihood = scaled[np.arange(len(labels)), labels] - np.log(np.exp(scaled).sum(axis=1))
    return float(-likelihood.mean())


def fit_temperature(logits: Floats, labels: Labels) -> float:
    """Return the temperature with the lowest log loss on held-out logits (Guo et al. 2017, arXiv:1706.04599).

    The loss has one minimum in the temperature, so a golden-section search over its logarithm finds it. The
    result is limited to 0.25 .. 50.
    """
    if not len(labels):
        return 1.0
    low, high = np.log(_TEMPERATURES)
    for _ in range(40):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if log_loss(logits, labels, float(np.exp(left))) < log_loss(logits, labels, float(np.exp(right))):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def fit_threshold(probability: Floats, labels: Labels, target: float = 0.95) -> float:
    """Return the lowest confidence at which at least a fraction `target` of the answers is right.

    Where no confidence reaches the target, the one with the best accuracy among those that still answer a
    tenth of the photos.

    Args:
        probability: Calibrated probabilities of held-out photos, [n, classes].
        labels: Their classes, [n].
        target: The accuracy wanted of the answers that are given.
    """
    if not len(labels):
        return 0.0
    confidence = probability.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    hits = (probability.argmax(axis=1) == labels)[order]
    accuracy = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    first = max(int(np.ceil(_LEAST_COVERAGE * len(hits))) - 1, 0)
    reached = np.flatnonzero(accuracy[first:] >= target)
    last = first + (int(reached[-1]) if len(reached) else int(np.argmax(accuracy[first:])))
    return 0.0 if last == len(hits) - 1 else float(confidence[order[last]])


def calibrate(logits: Floats, labels: Labels) -> Calibration:
    """Temperature and abstain threshold from held-out logits [n, classes] and labels [n]."""
    temperature = fit_temperature(logits, labels)
    return Calibration(temperature, fit_threshold(probabilities(logits, temperature), labels))
