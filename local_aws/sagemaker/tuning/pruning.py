"""Early stopping and completion of tuning jobs: pure rules over objective values."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

LEAST_FINISHED = 3
"""Trials that must have finished before the median rule judges another."""
REDUCTION = 3
"""Hyperband's reduction factor: the best third of a rung's trials continues."""
CONVERGENCE_TRIALS = 10
CONVERGENCE_SHARE = 0.001
"""Converged: the last CONVERGENCE_TRIALS trials improved the best objective by less than this share of it."""


def better(value: float, than: float, maximize: bool) -> bool:
    """Return True when an objective is strictly better than another."""
    return value > than if maximize else value < than


def best_of(values: Sequence[float], maximize: bool) -> float:
    """Return the best objective."""
    return max(values) if maximize else min(values)


def median_rule_stops(series: Sequence[float], finished: Sequence[Sequence[float]], maximize: bool) -> bool:
    """Early stopping Auto: whether a trial that has reported `series` should stop.

    It should when its best value so far is worse than the median of the running averages that the finished
    trials had after as many reports (docs: "How Early Stopping Works"; the rule of Google Vizier, Golovin et
    al. 2017, 3.2.2).
    """
    steps = len(series)
    if steps == 0:
        return False
    averages = [statistics.fmean(other[:steps]) for other in finished if len(other) >= steps]
    if len(averages) < LEAST_FINISHED:
        return False
    return better(statistics.median(averages), best_of(series, maximize), maximize)


def rungs(least: int, most: int | None) -> list[int]:
    """Return the numbers of reports at which Hyperband compares trials: least, 3 x least, ...

    below `most`.
    """
    levels = [max(1, least)]
    limit = most if most is not None else levels[0] * REDUCTION**4
    while levels[-1] * REDUCTION < limit:
        levels.append(levels[-1] * REDUCTION)
    return [level for level in levels if level < limit]


def hyperband_stops(name: str, rung: int, seen: Mapping[str, Sequence[float]], maximize: bool) -> bool:
    """Return True when a trial at a rung should stop: asynchronous successive halving (Li et al. 2020).

    `seen` holds the series of every trial so far, by name. A trial continues when it is in the best third of those that
    reached the rung, or when fewer than REDUCTION have.
    """
    reached = {
        other: best_of(series[:rung], maximize) for other, series in seen.items() if len(series) >= rung
    }
    if len(reached) < REDUCTION or name not in reached:
        return False
    ahead = sum(better(value, reached[name], maximize) for value in reached.values())
    return ahead >= max(1, len(reached) // REDUCTION)


def not_improving(objectives: Sequence[float], maximize: bool) -> int:
    """Return the number of trials since the best objective last improved."""
    best_at = 0
    for index, value in enumerate(objectives):
        if better(value, objectives[best_at], maximize):
            best_at = index
    return len(objectives) - 1 - best_at if objectives else 0


def converged(objectives: Sequence[float], maximize: bool) -> bool:
    """Return True when the last CONVERGENCE_TRIALS trials barely improved the best objective."""
    if len(objectives) < 2 * CONVERGENCE_TRIALS:
        return False
    before = best_of(objectives[:-CONVERGENCE_TRIALS], maximize)
    gain = abs(best_of(objectives, maximize) - before)
    return gain <= CONVERGENCE_SHARE * abs(before)
