"""Params that do not go together, and params that mean nothing beside others: told before anything is paid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_pipeline.aws import images
from ml_pipeline.requests import packed
from ml_pipeline.requests.endpoint import Serving
from ml_pipeline.requests.job import Compute
from ml_pipeline.requests.recipe import Recipe
from ml_pipeline.requests.search import SEARCH, TuneMode, search_of
from ml_pipeline.requests.training import Training
from ml_pipeline.requests.tuning import TuneStrategy
from ml_pipeline.settings import Settings

# Stands for what is not made yet.
_LATER = "later.tar.gz"
_NOTHING = "means nothing"
_SEARCH_ONLY = "counts for the search only"
# (a param, its value, the params that it puts out of use, what becomes of them)
_OUT_OF_USE = (
    ("tune_mode", "packed", (*SEARCH[2:], "warm_start"), _NOTHING),
    ("tune_strategy", "Grid", ("trials",), _NOTHING),
    ("train_on", "ec2", ("train_instance_count",), _NOTHING),
    ("train_on", "ec2", ("spot", "keep_alive"), _SEARCH_ONLY),
    ("strategy", "finetune", ("views", "embed_instance_type", "embed_instance_count"), _NOTHING),
)


def check(params: Mapping[str, Any], settings: Settings) -> None:
    """Build what a run of `train_and_deploy` will ask AWS for: what cannot be refuses itself.

    Raises:
        ValueError: Params that do not go together, or that AWS does not take; the message names them.
    """
    recipe, machine = Recipe.of(params), params["tune_instance_type"]
    limits = [params[name] for name in ("max_job_hours", "spot", "keep_alive")]
    tuning = Compute.of_params(machine, 1, *limits)
    if TuneMode(params["tune_mode"]) is TuneMode.PACKED:
        packed.packed_hyperparameters(recipe, int(params["trials"]), TuneStrategy(params["tune_strategy"]))
    else:
        trial = Training(
            image=images.training_image(settings, machine),
            role_arn=settings.role_arn,
            script="train.py",
            code_uri=settings.s3(_LATER),
            hyperparameters=recipe.of_trials(),
            channels=[],
            compute=tuning,
            outputs_uri=settings.s3("jobs/"),
            checkpoint_uri=settings.s3("jobs/checkpoints/"),
        )
        search_of(params, recipe, trial)
    if params["train_on"] == "sagemaker":
        Compute.of_params(params["train_instance_type"], params["train_instance_count"], *limits)
    bake = params["bake_seconds"]
    Serving(
        endpoint_name=params["endpoint_name"],
        model_uri=settings.s3(_LATER),
        image=images.serving_image(settings, params["endpoint_instance_type"]),
        role_arn=settings.role_arn,
        instance_type=params["endpoint_instance_type"],
        instance_count=int(params["endpoint_instance_count"]),
        max_count=int(params["endpoint_max_count"]),
        canary_percent=int(params["canary_percent"]),
        bake_seconds=settings.bake_seconds if bake is None else int(bake),
    )


def out_of_use(params: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """A line for every param that somebody gave and that means nothing beside the others.

    Args:
        defaults: What the params are when nobody gives them.
    """
    return [
        f"{name}={params[name]} {effect} with {mode}={value}"
        for mode, value, names, effect in _OUT_OF_USE
        if params[mode] == value
        for name in names
        if params[name] != defaults[name]
    ]
