"""Propose the hyperparameters of the next trial."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import numpy as np

from model_code.hyperparameters import OBJECTIVE, WITHOUT_PRIOR, Hyperparameter, Kind, Scale, Value
from model_code.train.loop import Metrics

# Random trials before the model of the objective is used.
_STARTUP: Final = 4


class Search(StrEnum):
    """Strategy that chooses candidates; SageMaker's names, in lower case."""

    BAYESIAN = "bayesian"
    RANDOM = "random"


class Status(StrEnum):
    """Final status of a trial; SageMaker's names."""

    COMPLETED = "Completed"
    FAILED = "Failed"


@dataclass(frozen=True)
class Trial:
    """One candidate and its result.

    Args:
        number: From 0, in the order proposed.
        searched: The values chosen for it.
        status: Completed or failed.
        metrics: Metrics of the epoch kept; empty if it failed.
        seconds: Duration.
        reason: Cause of the failure.
    """

    number: int
    searched: dict[str, Value]
    status: Status = Status.COMPLETED
    metrics: Metrics = field(default_factory=dict)
    seconds: float = 0.0
    reason: str = ""

    @property
    def objective(self) -> float:
        """The value that the search maximizes; minus infinity for a failed trial."""
        return self.metrics.get(OBJECTIVE["MetricName"], float("-inf"))


def propose(
    space: Mapping[str, Hyperparameter], done: Sequence[Trial], count: int, search: Search, seed: int
) -> list[dict[str, Value]]:
    """Propose the next `count` candidates, a pure function of the finished trials; see `_first` for the first.

    A restarted search therefore continues as if it had not been interrupted.
    """
    first = _first(space)[len(done) : len(done) + count]
    wanted = count - len(first)
    if search is Search.BAYESIAN and len(done) + len(first) >= _STARTUP:
        return first + _by_optuna(space, done, wanted, seed)
    draw = np.random.default_rng([seed, len(done)])
    return first + [{name: _draw(row, draw) for name, row in space.items()} for _ in range(wanted)]


def _first(space: Mapping[str, Hyperparameter]) -> list[dict[str, Value]]:
    """Candidates that every search tries: the defaults and, if the prior is searched, the best recipe without it.

    The choice on validation photos thus includes a head that ignores the pretrained classifier.
    """
    defaults = {name: row.default for name, row in space.items()}
    if "prior" not in space or not _allows(space["prior"], 0.0):
        return [defaults]
    plain = {
        name: value for name, value in WITHOUT_PRIOR.items() if name in space and _allows(space[name], value)
    }
    return [defaults, {**defaults, **plain}]


def _allows(row: Hyperparameter, value: float) -> bool:
    if row.search is None or row.kind is Kind.CHOICE:
        return row.search is not None and value in row.search
    return float(row.search[0]) <= value <= float(row.search[1])


def _draw(row: Hyperparameter, draw: np.random.Generator) -> Value:
    assert row.search is not None
    if row.kind is Kind.CHOICE:
        return row.search[int(draw.integers(len(row.search)))]
    low, high = float(row.search[0]), float(row.search[1])
    if row.scale is Scale.LOGARITHMIC:
        value = float(np.exp(draw.uniform(np.log(low), np.log(high))))
    else:
        value = float(draw.uniform(low, high))
    return row.parse(round(value)) if row.kind is Kind.INTEGER else row.parse(min(max(value, low), high))


def _by_optuna(
    space: Mapping[str, Hyperparameter], done: Sequence[Trial], count: int, seed: int
) -> list[dict[str, Value]]:
    """Tree-structured Parzen estimator over all trials so far (Bergstra et al. 2011), as implemented by Optuna."""
    try:
        import optuna
    except ImportError:  # SageMaker's own training image has no Optuna
        print("optuna is not installed: drawing at random", file=sys.stderr, flush=True)
        return propose(space, done, count, Search.RANDOM, seed)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(
        seed=int(np.random.default_rng([seed, len(done)]).integers(2**31)),
        n_startup_trials=_STARTUP,
        multivariate=True,
        constant_liar=True,
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    distributions = {name: _distribution(row) for name, row in space.items()}
    for trial in done:
        if trial.status is Status.COMPLETED:
            study.add_trial(
                optuna.trial.create_trial(
                    params=trial.searched, distributions=distributions, value=trial.objective
                )
            )
    return [dict(study.ask(distributions).params) for _ in range(count)]


def _distribution(row: Hyperparameter) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    assert row.search is not None
    if row.kind is Kind.CHOICE:
        return CategoricalDistribution(row.search)
    kind = IntDistribution if row.kind is Kind.INTEGER else FloatDistribution
    return kind(row.search[0], row.search[1], log=row.scale is Scale.LOGARITHMIC)
