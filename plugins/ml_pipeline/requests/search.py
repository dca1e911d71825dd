"""How the search for hyperparameters runs: its modes and its size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from ml_pipeline.requests.recipe import Recipe
from ml_pipeline.requests.training import Training
from ml_pipeline.requests.tuning import TuneStrategy, Tuning, WarmStart, grid_points
from model_code import hyperparameters

# Params that say how SageMaker searches; a packed search has none of them but the first two.
SEARCH = (
    "trials",
    "tune_strategy",
    "parallel_trials",
    "early_stopping",
    "target",
    "patience_trials",
    "stop_when_converged",
)


class TuneMode(StrEnum):
    """Where trials run."""

    JOB = "job"
    """Each in a training job of its own, run by a SageMaker tuning job."""
    PACKED = "packed"
    """All in one training job."""


def search_of(
    params: Mapping[str, Any], recipe: Recipe, trial: Training, parents: Sequence[str] = ()
) -> Tuning:
    """The search of a tuning job, from the params in SEARCH.

    Args:
        trial: The training job of a trial.
        parents: Earlier tuning jobs to start warm from.

    Raises:
        ValueError: Params that do not go together, or that SageMaker does not take.
    """
    strategy = TuneStrategy(params["tune_strategy"])
    trials, at_once = int(params["trials"]), int(params["parallel_trials"])
    grid = strategy is TuneStrategy.GRID
    return Tuning(
        trial=trial,
        ranges=recipe.parameter_ranges,
        objective=hyperparameters.OBJECTIVE,
        trials=None if grid else trials,
        parallel_trials=at_once if grid else min(at_once, trials),
        strategy=strategy,
        early_stopping=bool(params["early_stopping"]),
        seed=recipe.seed,
        target=params["target"],
        patience_trials=params["patience_trials"],
        stop_when_converged=bool(params["stop_when_converged"]),
        warm_start=WarmStart.TRANSFER if parents else None,
        warm_start_from=parents,
    )


def trials_of(strategy: str, trials: Any, recipe: Recipe) -> int:
    """How many trials a search makes: as many as asked for, but Grid counts them itself."""
    if TuneStrategy(strategy) is TuneStrategy.GRID:
        return grid_points(recipe.parameter_ranges)
    return int(trials)
