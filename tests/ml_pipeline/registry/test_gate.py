"""The gate: minimum accuracy, and challenger against champion."""

from __future__ import annotations

import json

import pytest

from ml_pipeline.registry import gate
from ml_pipeline.registry.gate import Burden, Difference


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
    with pytest.raises(ValueError, match="no photo in common"):
        gate.paired_difference(judged(1, 1), judged(1, 1, start=5))


def test_a_first_model_must_only_clear_the_bar() -> None:
    evaluation = {"accuracy": 0.8, "photos": 100}
    assert gate.decide(evaluation, 10, 0.7).passed
    refused = gate.decide(evaluation, 10, 0.9)
    assert not refused.passed
    assert "0.8000 is below the bar of 0.9000" in refused.reason
    assert gate.decide(evaluation, 10, None).passed
    assert not gate.decide({"accuracy": 0.12, "photos": 100}, 10, None).passed


def test_the_bar_of_guessing() -> None:
    assert gate.better_than_guessing(2, 10**9) == pytest.approx(0.5, abs=1e-3)
    assert gate.better_than_guessing(10, 100) == pytest.approx(0.1 + 1.645 * 0.03)
