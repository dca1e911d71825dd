"""Whether a challenger may replace the champion."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

# One-sided 95 % quantile of the normal distribution.
_Z = 1.645


class Burden(StrEnum):
    """Who has to prove something when challenger and champion are close."""

    CHAMPION = "champion"
    """The challenger passes unless it is shown to be worse: the interval lies wholly below -margin."""
    CHALLENGER = "challenger"
    """The challenger passes only if it is shown to be no worse: the interval lies wholly above -margin."""


@dataclass(frozen=True)
class Verdict:
    """Pass or not, and why, in one line."""

    passed: bool
    reason: str


@dataclass(frozen=True)
class Difference:
    """Accuracy of the challenger less the champion's on the same photos, with its 95 % interval."""

    photos: int
    mean: float
    low: float
    high: float


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


def correct(predictions: bytes) -> dict[str, bool]:
    """Photo key to whether the prediction was right, from the lines of predictions.jsonl."""
    rows = (json.loads(line) for line in predictions.splitlines() if line.strip())
    return {row["key"]: row["prediction"] == row["label"] for row in rows}


def paired_difference(challenger: Mapping[str, bool], champion: Mapping[str, bool]) -> Difference:
    """Difference in accuracy over the photos that both judged, with the interval of the evaluation's report.

    Raises:
        ValueError: The two judged no photo in common.
    """
    import numpy as np

    from model_code.evaluate import scores

    keys = sorted(challenger.keys() & champion.keys())
    found = scores.paired_difference(
        *(np.array([of[key] for key in keys], bool) for of in (challenger, champion))
    )
    return Difference(found.photos, found.mean, found.interval.low, found.interval.high)


def compare(difference: Difference, margin: float, burden: Burden) -> Verdict:
    """Challenger against champion; see `Burden`."""
    interval = (
        f"accuracy {difference.mean:+.4f} against the champion (95 % interval {difference.low:+.4f} to "
        f"{difference.high:+.4f}, {difference.photos} photos, margin {margin:.4f})"
    )
    if burden is Burden.CHAMPION:
        if difference.high >= -margin:
            return Verdict(True, f"not shown to be worse: {interval}")
        return Verdict(False, f"worse than the champion: {interval}")
    if difference.low >= -margin:
        return Verdict(True, f"shown to be no worse: {interval}")
    return Verdict(False, f"not shown to be as good as the champion: {interval}")


def decide(
    evaluation: Mapping[str, Any],
    classes: int,
    min_accuracy: float | None,
    difference: Difference | None = None,
    margin: float = 0.0,
    burden: Burden = Burden.CHAMPION,
) -> Verdict:
    """The verdict on what the evaluate task returned.

    Args:
        min_accuracy: Bar for every model; None: better than guessing among `classes`.
        difference: From the champion; None for a first model.
    """
    bar = better_than_guessing(classes, int(evaluation["photos"])) if min_accuracy is None else min_accuracy
    verdict = absolute(float(evaluation["accuracy"]), float(bar))
    if not verdict.passed:
        return verdict
    if difference is None:
        return Verdict(True, f"{verdict.reason}; there is no champion to compare with")
    return compare(difference, margin, burden)
