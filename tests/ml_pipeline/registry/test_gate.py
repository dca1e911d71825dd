"""The gate: minimum accuracy, and challenger against champion."""

from __future__ import annotations

import json

import pytest

from ml_pipeline.registry import gate
from ml_pipeline.registry.gate import Burden, Difference
from ml_pipeline.requests.types import Evaluated


def judged(right: int, wrong: int, start: int = 0) -> dict[str, bool]:
    return {f"{start + n}": n < right for n in range(right + wrong)}


def test_predictions_are_right_or_wrong() -> None:
    lines = [
        json.dumps({"key": "a", "label": "x", "prediction": "x"}),
        json.dumps({"key": "b", "label": "x", "prediction": "y"}),
    ]
    assert gate.correct("\n".join(lines).encode()) == {"a": True, "b": False}


def test_equal_models_differ_by_nothing() -> None:
    difference = gate.paired_difference(judged(80, 20), judged(80, 20))
    assert (difference.photos, difference.mean) == (100, 0.0)
    assert difference.low == -difference.high < 0
    assert gate.compare(difference, 0.0, Burden.CHAMPION).passed
    # A hundred photos do not show that no photo would be judged worse.
    assert not gate.compare(difference, 0.0, Burden.CHALLENGER).passed
    assert gate.compare(difference, 0.05, Burden.CHALLENGER).passed


def test_a_difference_has_an_interval_around_it() -> None:
    difference = gate.paired_difference(judged(90, 110), judged(70, 130))
    assert difference.mean == pytest.approx(0.1)
    assert 0.05 < difference.low < 0.1 < difference.high < 0.15


def test_who_bears_the_burden_of_proof_decides_close_cases() -> None:
    close = Difference(100, -0.02, -0.06, 0.02)
    assert gate.compare(close, 0.0, Burden.CHAMPION).passed
    assert not gate.compare(close, 0.0, Burden.CHALLENGER).passed
    assert gate.compare(close, 0.07, Burden.CHALLENGER).passed
    clearly_worse = Difference(1000, -0.05, -0.08, -0.02)
    assert not gate.compare(clearly_worse, 0.0, Burden.CHAMPION).passed


def test_models_judged_on_other_photos_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="no test photo in common"):
        gate.paired_difference(judged(1, 1), judged(1, 1, start=5))


def evaluated(accuracy: float, photos: int) -> Evaluated:
    return {
        "job_name": "evaluate-1",
        "model_uri": "s3://bucket/model.tar.gz",
        "evaluation_uri": "s3://bucket/evaluation.json",
        "predictions_uri": "s3://bucket/predictions.jsonl",
        "report_uri": "s3://bucket/report.html",
        "report_url": "",
        "accuracy": accuracy,
        "top5_accuracy": 1.0,
        "photos": photos,
        "runtime": "onnxruntime",
        "champion": None,
    }


def test_a_first_model_must_only_clear_the_bar() -> None:
    first = evaluated(0.8, 100)
    assert gate.decide(first, 0.1, 0.7).passed
    refused = gate.decide(first, 0.1, 0.9)
    assert not refused.passed
    assert "0.8000 is below min_accuracy=0.9000: lower it" in refused.reason
    passed = gate.decide(first, 0.1, None)
    assert passed.passed
    assert "first approved model of this data set" in passed.reason
    assert not gate.decide(evaluated(0.12, 100), 0.1, None).passed


@pytest.mark.parametrize(
    ("right", "photos", "constant", "passed"),
    [
        (24, 26, 24 / 26, False),  # the constant answer itself
        (25, 26, 24 / 26, False),
        (26, 26, 24 / 26, True),
        (6, 9, 3 / 9, True),
        (5, 9, 3 / 9, False),
        (9, 9, 1.0, False),  # a single class: nothing was judged
        (90, 100, 0.5, True),
    ],
)
def test_a_model_has_to_beat_the_best_constant_answer(
    right: int, photos: int, constant: float, passed: bool
) -> None:
    verdict = gate.decide(evaluated(right / photos, photos), constant, None)
    assert verdict.passed is passed
    if not passed:
        assert "add photos" in verdict.reason


def test_the_best_constant_answer_names_the_most_frequent_class() -> None:
    labels = ["a"] * 24 + ["b", "c"]
    lines = "\n".join(
        json.dumps({"key": str(n), "label": label, "prediction": "a"}) for n, label in enumerate(labels)
    )
    assert gate.constant_accuracy(lines.encode()) == 24 / 26


def test_the_bar_of_chance() -> None:
    assert gate.better_than(0.5, 10**9) == pytest.approx(0.5, abs=1e-3)
    assert gate.better_than(0.1, 100) == pytest.approx(0.1 + 1.645 * 0.03)
