"""The modes and the size of a search for hyperparameters."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from ml_pipeline.requests.recipe import Recipe
from ml_pipeline.requests.training import Training
from ml_pipeline.requests.tuning import TuneStrategy, Tuning, WarmStart, grid_points
from ml_pipeline.requests.types import Params
from model_code import hyperparameters

# Params of SageMaker's search; a packed search uses only the first two.
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
    """The place where trials run."""

    JOB = "job"
    """Each in a training job of its own, run by a SageMaker tuning job."""
    PACKED = "packed"
    """All in one training job."""


def search_of(params: Params, recipe: Recipe, trial: Training, parents: Sequence[str] = ()) -> Tuning:
    """Build the search of a tuning job from the params in SEARCH.

    Args:
        params: Params of the run.
        recipe: The training recipe, which fixes the hyperparameters that are not searched.
        trial: The training job of a trial.
        parents: Earlier tuning jobs to start warm from.

    Raises:
        ValueError: Params are incompatible, or SageMaker does not accept them.
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


def trials_of(strategy: str, trials: int | str, recipe: Recipe) -> int:
    """Return the number of trials: as asked for, except that Grid tries every combination."""
    if TuneStrategy(strategy) is TuneStrategy.GRID:
        return grid_points(recipe.parameter_ranges)
    return int(trials)
