"""Search strategies of a tuning job: propose points and learn from their objectives."""

from __future__ import annotations

import itertools
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from local_aws.sagemaker.tuning.search_space import Dimension, grid, random_point

STARTUP_TRIALS = 5
"""Random points before the Bayesian model takes over."""


class Searcher(ABC):
    """Proposes points. It learns nothing unless a subclass does."""

    @abstractmethod
    def ask(self) -> tuple[int, dict[str, str]] | None:
        """Return (a number for `tell`, hyperparameters), or None when no point is left."""

    @abstractmethod
    def replay(self, point: Mapping[str, str]) -> int:
        """Repeat a draw after a restart; return the point's number for `tell`."""

    def tell(self, number: int, objective: float | None) -> None:  # noqa: B027
        """Report the objective of a point, None for a failure."""

    def learn(self, point: Mapping[str, str], objective: float) -> None:  # noqa: B027
        """Learn a result of an earlier tuning job (warm start)."""


class RandomSearcher(Searcher):
    """Independent random points; also what Hyperband samples."""

    def __init__(self, dimensions: Sequence[Dimension], seed: int) -> None:
        self._dimensions, self._seed = dimensions, seed
        self._numbers = itertools.count()
        self._known: set[tuple[tuple[str, str], ...]] = set()

    def ask(self) -> tuple[int, dict[str, str]]:
        """Return a point not tried before, unless several draws in a row repeat one."""
        for _ in range(20):
            number = next(self._numbers)
            point = random_point(self._dimensions, self._seed, number)
            key = tuple(sorted(point.items()))
            if key not in self._known:
                break
        self._known.add(key)
        return number, point

    def replay(self, point: Mapping[str, str]) -> int:
        """Points follow from the seed and their number: the same is drawn again."""
        number, _ = self.ask()
        self._known.add(tuple(sorted(point.items())))
        return number

    def learn(self, point: Mapping[str, str], objective: float) -> None:
        """Remember the point, so that it is not tried again."""
        self._known.add(tuple(sorted(point.items())))


class GridSearcher(Searcher):
    """Every combination of categorical values, once."""

    def __init__(self, dimensions: Sequence[Dimension]) -> None:
        self._points = iter(enumerate(grid(dimensions)))

    def ask(self) -> tuple[int, dict[str, str]] | None:
        """Return the next combination."""
        return next(self._points, None)

    def replay(self, point: Mapping[str, str]) -> int:
        """Return the combinations come in the same order again."""
        return next(self._points)[0]


class BayesianSearcher(Searcher):
    """Optuna's multivariate tree-structured Parzen estimator, with running trials as constant liars.

    Numeric dimensions are modelled on their own scale as [0, 1].
    """

    def __init__(self, dimensions: Sequence[Dimension], seed: int, maximize: bool) -> None:
        import optuna  # slow to import, and only tuning needs it

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna = optuna
        self._dimensions, self._seed = dimensions, seed
        self._distributions = {
            dimension.name: optuna.distributions.CategoricalDistribution(dimension.choices)
            if dimension.kind == "categorical"
            else optuna.distributions.FloatDistribution(0.0, 1.0)
            for dimension in dimensions
        }
        self._study = optuna.create_study(direction="maximize" if maximize else "minimize")
        self._trials: dict[int, Any] = {}

    def ask(self) -> tuple[int, dict[str, str]]:
        """Return the most promising point."""
        # One seed per trial, so that an interrupted search continues with the same draws.
        seed = random.Random(f"{self._seed}/{len(self._study.trials)}").getrandbits(32)
        self._study.sampler = self._optuna.samplers.TPESampler(
            seed=seed, multivariate=True, constant_liar=True, n_startup_trials=STARTUP_TRIALS
        )
        trial = self._study.ask(self._distributions)
        self._trials[trial.number] = trial
        point = {}
        for dimension in self._dimensions:
            value = trial.params[dimension.name]
            point[dimension.name] = (
                value if dimension.kind == "categorical" else dimension.text(dimension.from_unit(value))
            )
        return trial.number, point

    def replay(self, point: Mapping[str, str]) -> int:
        """Enqueue the point in place of the model's own."""
        self._study.enqueue_trial(self._params(point) or {})
        number, _ = self.ask()
        return number

    def tell(self, number: int, objective: float | None) -> None:
        """Teach the model."""
        state = self._optuna.trial.TrialState
        self._study.tell(
            self._trials.pop(number), objective, state=state.FAIL if objective is None else state.COMPLETE
        )

    def learn(self, point: Mapping[str, str], objective: float) -> None:
        """Add a trial of an earlier tuning job if it is in this search space."""
        params = self._params(point)
        if params is not None:
            self._study.add_trial(
                self._optuna.trial.create_trial(
                    params=params, distributions=self._distributions, value=objective
                )
            )

    def _params(self, point: Mapping[str, str]) -> dict[str, object] | None:
        """Convert a point for the study; None when it is outside this search space."""
        params: dict[str, object] = {}
        for dimension in self._dimensions:
            text = point.get(dimension.name)
            position = None if text is None else dimension.position(text)
            if position is None:
                return None
            params[dimension.name] = text if dimension.kind == "categorical" else position
        return params


def make_searcher(strategy: str, dimensions: Sequence[Dimension], seed: int, maximize: bool) -> Searcher:
    """Return the searcher of a HyperParameterTuningJobStrategyType."""
    if strategy == "Grid":
        return GridSearcher(dimensions)
    if strategy == "Bayesian":
        return BayesianSearcher(dimensions, seed, maximize)
    return RandomSearcher(dimensions, seed)
