"""Recipes, and the search that is packed into one job."""

from __future__ import annotations

from typing import Any

import pytest

from ml_pipeline.requests import packed
from ml_pipeline.requests.recipe import Recipe
from ml_pipeline.requests.tuning import TuneStrategy
from model_code.hyperparameters import HyperparameterError, search_space


def test_a_packed_search_cannot_do_what_only_sagemaker_can() -> None:
    with pytest.raises(ValueError, match="packed"):
        packed.packed_hyperparameters(Recipe("head", "resnet18"), 3, TuneStrategy.HYPERBAND)
    recipe = Recipe("head", "resnet18", 1, {"epochs": 3}, {"mixup": None})
    assert packed.packed_hyperparameters(recipe, 3, TuneStrategy.RANDOM) == {
        **{"strategy": "head", "architecture": "resnet18", "seed": "1", "epochs": "3"},
        **{"trials": "3", "search": "random", "ranges": '"{\\"mixup\\": null}"'},
    }


def test_what_is_fixed_is_not_searched_and_reaches_every_job() -> None:
    recipe = Recipe("head", "resnet18", 7, {"dropout": 0.25, "epochs": 50})
    tuned = {entry["Name"] for entries in recipe.parameter_ranges.values() for entry in entries}
    assert "dropout" not in tuned
    assert tuned
    assert (recipe.of_trials()["dropout"], recipe.of_trials()["epochs"]) == ("0.25", "50")
    assert not tuned & set(recipe.of_trials())
    final = recipe.of_final({"mixup": "0.5"})
    assert (final["dropout"], final["mixup"], final["seed"], final["mode"]) == ("0.25", "0.5", "7", "final")


@pytest.mark.parametrize(
    ("hyperparameters", "ranges", "message"),
    [
        ({"blocks": 2}, None, "means nothing to strategy=head"),
        ({"dropout": 2}, None, "out of bounds"),
        ({"seed": 2}, None, "param of its own"),
        ({"dropout": 0.1}, {"dropout": {"low": 0, "high": 0.5}}, "take it out of one"),
        (dict.fromkeys(search_space("head"), 0.1), None, "nothing to search"),
        ({}, {"droput": None}, "unknown"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(
    hyperparameters: dict[str, Any], ranges: dict[str, Any] | None, message: str
) -> None:
    with pytest.raises(HyperparameterError, match=message):
        Recipe("head", "resnet18", 0, hyperparameters, ranges)
