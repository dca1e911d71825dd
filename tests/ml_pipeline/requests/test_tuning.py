"""CreateHyperParameterTuningJob, against the service model of botocore."""

from __future__ import annotations

import pytest

from ml_pipeline.dataset.version import training_channels
from ml_pipeline.requests.tuning import TuneStrategy, Tuning, WarmStart, tuning_job
from model_code import hyperparameters
from tests.ml_pipeline.requests.examples import TAGS, VERSION, training
from tests.ml_pipeline.service_model import problems


@pytest.mark.parametrize("strategy", list(TuneStrategy))
def test_tuning(strategy: TuneStrategy) -> None:
    grid = strategy is TuneStrategy.GRID
    changes = (
        {name: {"choices": [0.1, 0.2]} for name in hyperparameters.search_space("head")} if grid else None
    )
    ranges = hyperparameters.parameter_ranges("head", changes)
    search = Tuning(
        trial=training(
            hyperparameters=hyperparameters.static_hyperparameters({"strategy": "head"}, ranges),
            channels=training_channels(VERSION, "head", "s3://bucket/e/", None, final=False),
        ),
        ranges=ranges,
        objective=hyperparameters.OBJECTIVE,
        trials=None if grid else 12,
        parallel_trials=2,
        strategy=strategy,
        seed=0,
        early_stopping=strategy is TuneStrategy.BAYESIAN,
        target=0.9,
        patience_trials=5,
        stop_when_converged=True,
        max_runtime_seconds=3600,
        warm_start=WarmStart.IDENTICAL,
        warm_start_from=["tune-a-1"],
    )
    request = tuning_job("tune-0123456789ab-1", search, TAGS)
    assert problems("sagemaker", "CreateHyperParameterTuningJob", request) == []
    static = request["TrainingJobDefinition"]["StaticHyperParameters"]
    assert "learning_rate" not in static
