"""CreateHyperParameterTuningJob."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from ml_pipeline.requests.training import Training, definition, script_mode
from ml_pipeline.requests.types import Document, Tags, Trial


class TuneStrategy(StrEnum):
    """The way SageMaker picks the next trial."""

    BAYESIAN = "Bayesian"
    RANDOM = "Random"
    HYPERBAND = "Hyperband"
    GRID = "Grid"


# ParameterRanges: descriptions of ranges by kind.
Ranges: TypeAlias = Mapping[str, Sequence[Mapping[str, Any]]]
# The kinds of ranges that Grid does not accept.
_SCALED = ("ContinuousParameterRanges", "IntegerParameterRanges")


class WarmStart(StrEnum):
    """The relation of earlier tuning jobs to this one."""

    IDENTICAL = "IdenticalDataAndAlgorithm"
    TRANSFER = "TransferLearning"


@dataclass(frozen=True)
class Tuning:
    """A search: the training job of a trial, what varies, and when to stop.

    Attributes:
        trial: The training job of a trial; its hyperparameters are the fixed ones.
        ranges: ParameterRanges.
        objective: HyperParameterTuningJobObjective.
        trials: Maximum number of trials; None with Grid, which tries every combination.
        parallel_trials: Concurrent trials.
        early_stopping: Let SageMaker stop trials that fall behind.
        max_runtime_seconds: Limit of the whole search, in seconds, at least 120.
        target: Stop once the objective reaches this.
        patience_trials: Stop after this many trials without an improvement (3 at least).
        stop_when_converged: Stop when SageMaker finds that a better trial is unlikely.
        warm_start_from: At most 5 earlier tuning jobs.
    """

    trial: Training
    ranges: Ranges
    objective: Mapping[str, object]
    trials: int | None
    parallel_trials: int
    strategy: TuneStrategy = TuneStrategy.BAYESIAN
    early_stopping: bool = False
    seed: int | None = None
    max_runtime_seconds: int | None = None
    target: float | None = None
    patience_trials: int | None = None
    stop_when_converged: bool = False
    warm_start: WarmStart | None = None
    warm_start_from: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.strategy is TuneStrategy.GRID:
            if self.trials is not None:
                raise ValueError("Grid tries every combination; leave trials out")
            if scaled := [entry["Name"] for kind in _SCALED for entry in self.ranges.get(kind, ())]:
                raise ValueError(
                    f"Grid searches choices only, and {scaled[0]} has a range: give ranges of "
                    f'{{"{scaled[0]}": {{"choices": [...]}}}} for all names, or choose another tune_strategy'
                )
        elif not self.trials:
            raise ValueError("a search needs trials: at least 1")
        if self.parallel_trials < 1 or (self.trials and self.parallel_trials > self.trials):
            raise ValueError(f"parallel_trials is {self.parallel_trials}; choose 1 to {self.trials}")
        if self.strategy is TuneStrategy.HYPERBAND and self.early_stopping:
            raise ValueError("Hyperband stops trials itself; turn early_stopping off")
        if self.patience_trials is not None and self.patience_trials < 3:
            raise ValueError(f"patience_trials is {self.patience_trials}; SageMaker takes 3 or more")
        if (self.warm_start is not None) != bool(self.warm_start_from):
            raise ValueError("warm_start and warm_start_from go together")
        if len(self.warm_start_from) > 5:
            raise ValueError("warm start takes at most 5 parents")


def grid_points(ranges: Ranges) -> int:
    """Return the number of combinations that Grid tries."""
    return math.prod(len(entry["Values"]) for entry in ranges.get("CategoricalParameterRanges", ()))


def tuning_job(name: str, search: Tuning, tags: Tags = ()) -> Document:
    """Build the request of CreateHyperParameterTuningJob for `search` under `name` (32 characters at most)."""
    limits: dict[str, int] = {"MaxParallelTrainingJobs": search.parallel_trials}
    if search.trials:
        limits["MaxNumberOfTrainingJobs"] = search.trials
    if search.max_runtime_seconds:
        limits["MaxRuntimeInSeconds"] = search.max_runtime_seconds
    config: Document = {
        "Strategy": search.strategy.value,
        "HyperParameterTuningJobObjective": dict(search.objective),
        "ResourceLimits": limits,
        "ParameterRanges": {
            kind: [dict(entry) for entry in entries] for kind, entries in search.ranges.items()
        },
        "TrainingJobEarlyStoppingType": "Auto" if search.early_stopping else "Off",
    }
    if search.seed is not None:
        config["RandomSeed"] = search.seed
    if completion := _completion(search):
        config["TuningJobCompletionCriteria"] = completion
    trial = search.trial
    request: Document = {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": config,
        "TrainingJobDefinition": {
            "StaticHyperParameters": {**trial.hyperparameters, **script_mode(trial)},
            **definition(trial),
            **({"CheckpointConfig": {"S3Uri": trial.checkpoint_uri}} if trial.checkpoint_uri else {}),
        },
        "Tags": list(tags),
    }
    if search.warm_start:
        request["WarmStartConfig"] = {
            "WarmStartType": search.warm_start.value,
            "ParentHyperParameterTuningJobs": [
                {"HyperParameterTuningJobName": parent} for parent in search.warm_start_from
            ],
        }
    return request


def _completion(search: Tuning) -> Document:
    criteria: Document = {}
    if search.target is not None:
        criteria["TargetObjectiveMetricValue"] = search.target
    if search.patience_trials is not None:
        criteria["BestObjectiveNotImproving"] = {
            "MaxNumberOfTrainingJobsNotImproving": search.patience_trials
        }
    if search.stop_when_converged:
        criteria["ConvergenceDetected"] = {"CompleteOnConvergence": "Enabled"}
    return criteria


def trial_row(summary: Document) -> Trial:
    """Build a row of the trials table from SageMaker's summary of a trial."""
    start, end = summary.get("TrainingStartTime"), summary.get("TrainingEndTime")
    metric = summary.get("FinalHyperParameterTuningJobObjectiveMetric")
    return {
        "name": summary["TrainingJobName"],
        "status": summary["TrainingJobStatus"],
        "value": metric["Value"] if metric else None,
        "seconds": round((end - start).total_seconds(), 1) if start and end else None,
        "hyperparameters": dict(summary["TunedHyperParameters"]),
    }
