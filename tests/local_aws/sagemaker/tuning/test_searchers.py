"""A search that is interrupted goes on as if it had not been."""

from __future__ import annotations

import pytest

from local_aws.sagemaker.tuning.search_space import Dimension
from local_aws.sagemaker.tuning.searchers import make_searcher

NUMBERS = [
    Dimension("rate", "continuous", 0.0001, 1.0, "Logarithmic"),
    Dimension("width", "integer", 1, 64),
    Dimension("kind", "categorical", choices=("a", "b", "c")),
]
CATEGORIES = [
    Dimension("kind", "categorical", choices=("a", "b", "c", "d")),
    Dimension("other", "categorical", choices=("x", "y", "z")),
]


@pytest.mark.parametrize("strategy", ["Random", "Grid", "Bayesian"])
def test_the_next_points_are_the_same_after_a_restart(strategy: str) -> None:
    dimensions = CATEGORIES if strategy == "Grid" else NUMBERS
    first = make_searcher(strategy, dimensions, seed=3, maximize=True)
    asked = []
    for step in range(8):
        drawn = first.ask()
        assert drawn is not None
        asked.append(drawn)
        if step < 7:  # the last one runs when the search is interrupted
            first.tell(drawn[0], float(step % 3))
    second = make_searcher(strategy, dimensions, seed=3, maximize=True)
    numbers = [second.replay(point) for _, point in asked]
    for step, number in enumerate(numbers[:7]):
        second.tell(number, float(step % 3))
    assert second.ask() == first.ask()
