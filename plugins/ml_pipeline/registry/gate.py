"""Decide whether a challenger may replace the champion."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from ml_pipeline.requests.types import Document, Evaluated

# One-sided 95 % quantile of the normal distribution.
_Z = 1.645
_REFUSED = "the champion stays in service: raise margin, add photos, correct labels, or search longer"


class Burden(StrEnum):
    """The burden of proof when challenger and champion are close."""

    CHAMPION = "champion"
    """The challenger passes unless it is shown to be worse: the whole interval is below -margin."""
    CHALLENGER = "challenger"
    """The challenger passes only if it is shown to be no worse: the whole interval is above -margin."""


@dataclass(frozen=True)
class Verdict:
    """The decision, and its reason in one line."""

    passed: bool
    reason: str


@dataclass(frozen=True)
class Difference:
    """Accuracy of the challenger minus the champion's on the same photos, with its 95 % interval."""

    photos: int
    mean: float
    low: float
    high: float


def absolute(accuracy: float, min_accuracy: float) -> Verdict:
    """Hold every model against `min_accuracy` on the test split."""
    if accuracy >= min_accuracy:
        return Verdict(True, f"accuracy {accuracy:.4f} is at least {min_accuracy:.4f}")
    return Verdict(
        False,
        f"accuracy {accuracy:.4f} is below min_accuracy={min_accuracy:.4f}: "
        "lower it, add photos, correct labels, or search longer",
    )


def useful(accuracy: float, constant: float, photos: int) -> Verdict:
    """Require more than the best constant answer, which names the most frequent class of the test split every time.

    The bar is what that answer would reach on other photos in one of twenty tries, by the normal approximation of the
    binomial distribution: p + z sqrt(p (1 - p) / n), at most 1.

    Args:
        accuracy: Accuracy of the model, 0 to 1.
        constant: Accuracy of the best constant answer.
        photos: Photos of the test split.
    """
    if constant >= 1:
        return Verdict(
            False,
            "the test split holds photos of a single class, so nothing can be judged: add photos of the other classes",
        )
    bar = better_than(constant, photos)
    if accuracy > constant and accuracy >= bar:
        return Verdict(
            True, f"accuracy {accuracy:.4f} beats the most frequent class ({constant:.4f}; bar {bar:.4f})"
        )
    return Verdict(
        False,
        f"accuracy {accuracy:.4f} on {photos} photos does not clearly beat naming the most frequent class every time "
        f"({constant:.4f}; bar {bar:.4f}): add photos, correct labels, search longer, or set min_accuracy",
    )


def better_than(chance: float, photos: int) -> float:
    """Return the accuracy over `photos` photos that answers right by `chance` exceed in one of twenty tries."""
    if photos < 1:
        raise ValueError("no test photos: nothing to judge")
    return min(1.0, chance + _Z * math.sqrt(chance * (1 - chance) / photos))


def constant_accuracy(predictions: bytes) -> float:
    """Return the accuracy of always naming the most frequent class, from the lines of predictions.jsonl."""
    labels = Counter(row["label"] for row in _rows(predictions))
    return max(labels.values()) / labels.total() if labels else 0.0


def correct(predictions: bytes) -> dict[str, bool]:
    """Map each photo key to True if its prediction was right, from the lines of predictions.jsonl."""
    return {row["key"]: row["prediction"] == row["label"] for row in _rows(predictions)}


def _rows(predictions: bytes) -> Iterator[Document]:
    return (json.loads(line) for line in predictions.splitlines() if line.strip())


def paired_difference(challenger: Mapping[str, bool], champion: Mapping[str, bool]) -> Difference:
    """Return the difference in accuracy over the photos that both judged, with the interval of the report.

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
    """Compare challenger and champion; see `Burden`."""
    interval = (
        f"accuracy {difference.mean:+.4f} against the champion (95 % interval {difference.low:+.4f} to "
        f"{difference.high:+.4f}, {difference.photos} photos, margin {margin:.4f})"
    )
    if burden is Burden.CHAMPION:
        if difference.high >= -margin:
            return Verdict(True, f"not shown to be worse: {interval}")
        return Verdict(False, f"worse than the champion: {interval}; {_REFUSED}")
    if difference.low >= -margin:
        return Verdict(True, f"shown to be no worse: {interval}")
    return Verdict(False, f"not shown to be as good as the champion: {interval}; {_REFUSED}")


def decide(
    evaluation: Evaluated,
    constant: float,
    min_accuracy: float | None,
    difference: Difference | None = None,
    margin: float = 0.0,
    burden: Burden = Burden.CHAMPION,
) -> Verdict:
    """Decide from the result of evaluate.

    Args:
        evaluation: Result of evaluate.
        constant: Accuracy of the best constant answer on the same photos.
        min_accuracy: Bar for every model; None: better than that constant answer.
        difference: From the champion; None for a first model.
        margin: Loss of accuracy against the champion that is tolerated, 0 to 1.
        burden: The side that has to prove its case: see `Burden`.
    """
    accuracy = float(evaluation["accuracy"])
    if min_accuracy is None:
        verdict = useful(accuracy, constant, int(evaluation["photos"]))
    else:
        verdict = absolute(accuracy, float(min_accuracy))
    if not verdict.passed:
        return verdict
    if difference is None:
        return Verdict(
            True,
            f"{verdict.reason}; it is the first approved model of this data set, so there is no champion to beat",
        )
    return compare(difference, margin, burden)
