"""Whether a challenger may replace the champion."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """Pass or not, and why, in one line."""

    passed: bool
    reason: str


# One-sided 95 % quantile of the normal distribution.
_Z = 1.645


def absolute(accuracy: float, min_accuracy: float) -> Verdict:
    """The bar for every model: at least `min_accuracy` on the test split."""
    if accuracy >= min_accuracy:
        return Verdict(True, f"accuracy {accuracy:.4f} is at least {min_accuracy:.4f}")
    return Verdict(
        False,
        f"accuracy {accuracy:.4f} is below the bar of {min_accuracy:.4f}: "
        "lower min_accuracy, add photos or search longer",
    )


def better_than_guessing(classes: int, photos: int) -> float:
    """The accuracy over `photos` photos that blind guessing among `classes` reaches in one of twenty tries.

    Normal approximation of the binomial distribution: p + z sqrt(p (1 - p) / n), at most 1.
    """
    if classes < 1 or photos < 1:
        raise ValueError(f"{classes} classes and {photos} photos: nothing to judge")
    chance = 1.0 / classes
    return min(1.0, chance + _Z * math.sqrt(chance * (1 - chance) / photos))


def decide(evaluation: Mapping[str, Any], classes: int, min_accuracy: float | None) -> Verdict:
    """The verdict on what the evaluate task returned; without `min_accuracy` the bar is blind guessing."""
    bar = better_than_guessing(classes, int(evaluation["photos"])) if min_accuracy is None else min_accuracy
    return absolute(float(evaluation["accuracy"]), float(bar))
