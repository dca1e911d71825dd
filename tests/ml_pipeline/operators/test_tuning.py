"""The table of trials."""

from __future__ import annotations

from ml_pipeline.operators.tuning import best_trials
from ml_pipeline.requests.types import Trial


def test_the_best_trials_are_listed() -> None:
    trials: list[Trial] = [
        {"name": str(n), "status": "Completed", "value": value, "seconds": 1.0, "hyperparameters": {}}
        for n, value in enumerate((0.1, None, 0.9, 0.0))
    ]
    assert [trial["value"] for trial in best_trials(trials, 3)] == [0.9, 0.1, 0.0]
    assert best_trials(trials, 9)[-1]["value"] is None
