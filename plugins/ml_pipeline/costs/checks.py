"""Reject unknown and incompatible params, and list ignored ones, before anything is billed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from ml_pipeline.aws import images
from ml_pipeline.aws.clients import Client
from ml_pipeline.costs import machines
from ml_pipeline.requests import packed, preferences
from ml_pipeline.requests.endpoint import Serving
from ml_pipeline.requests.job import Compute
from ml_pipeline.requests.recipe import Recipe
from ml_pipeline.requests.search import SEARCH, TuneMode, search_of
from ml_pipeline.requests.training import Training
from ml_pipeline.requests.tuning import TuneStrategy
from ml_pipeline.requests.types import Params
from ml_pipeline.settings import Settings

# Placeholder for an archive that does not exist yet.
_LATER = "later.tar.gz"
_IGNORED = "is ignored"
_SEARCH_ONLY = "applies to the search only"
# (a param, its value, the params that it makes ineffective, and how)
_OUT_OF_USE = (
    ("tune_mode", "packed", (*SEARCH[2:], "warm_start"), _IGNORED),
    ("tune_strategy", "Grid", ("trials",), _IGNORED),
    ("train_on", "ec2", ("train_instance_count",), _IGNORED),
    ("train_on", "ec2", ("spot", "keep_alive"), _SEARCH_ONLY),
    ("strategy", "finetune", ("views", "embed_instance_type", "embed_instance_count"), _IGNORED),
)


# Instance types that AWS lists for the params of a run: (param, the shape of botocore's SageMaker model).
_MACHINES = (
    ("prepare_instance_type", "ProcessingInstanceType"),
    ("embed_instance_type", "ProcessingInstanceType"),
    ("tune_instance_type", "TrainingInstanceType"),
    ("evaluate_instance_type", "ProcessingInstanceType"),
    ("endpoint_instance_type", "ProductionVariantInstanceType"),
)


def refuse_unknown(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Refuse names that are not params, with the nearest ones that are.

    Args:
        given: Names that the caller sets.
        known: Names of the params that exist.
        where: The owner of the params, for the message: "train_and_deploy".

    Raises:
        ValueError: A name is unknown.
    """
    known = sorted(known)
    unknown = sorted(set(given) - set(known))
    if not unknown:
        return
    hints = [f"{name!r}{_hint(name, known)}" for name in unknown]
    raise ValueError(f"{where} has no param {', '.join(hints)}")


def check_machines(params: Params, sagemaker: Client, ec2: Client = None) -> None:
    """Refuse instance types that AWS does not have, by the service models that botocore carries.

    Args:
        params: Params of the run.
        sagemaker: boto3 client of SageMaker.
        ec2: boto3 client of EC2; only a training on EC2 needs it.

    Raises:
        ValueError: AWS has no such instance type; the message names the nearest ones.
    """
    for name, shape in _MACHINES:
        _check_machine(name, params[name], sagemaker, shape)
    machine = params["train_instance_type"]
    if params["train_on"] == "ec2":
        if "," in machine:
            raise ValueError(f"train_instance_type={machine}: EC2 takes one instance type; choose one")
        _check_machine("train_instance_type", machine.removeprefix("ml."), ec2, "InstanceType")
    else:
        _check_machine("train_instance_type", machine, sagemaker, "TrainingInstanceType")


def _check_machine(name: str, machine: str, client: Client, shape: str) -> None:
    if machine in (machines.AUTO, machines.WORKER):
        return
    types = preferences.split(machine)
    if len(set(types)) < len(types) or len(types) > preferences.LIMIT:
        raise ValueError(f"{name}={machine}: choose up to {preferences.LIMIT} different instance types")
    if len({images.has_gpu(each) for each in types}) > 1:
        raise ValueError(f"{name}={machine}: choose all with a GPU or all without; they run the same image")
    known: Sequence[str] = client.meta.service_model.shape_for(shape).enum
    for each in types:
        if each not in known:
            service = "EC2" if shape == "InstanceType" else "SageMaker"
            raise ValueError(
                f"{name}={each}: {service} has no such instance type{_hint(each, known)}; for one that AWS added "
                "lately, update boto3"
            )


def _hint(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 3, 0.5)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def check(params: Params, settings: Settings) -> None:
    """Build the requests of a run of `train_and_deploy`: those that AWS would refuse raise.

    Raises:
        ValueError: Params are incompatible, or AWS does not accept them; the message names them.
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


def out_of_use(params: Params, defaults: Params) -> list[str]:
    """List the params that were set although the others make them ineffective, one line each.

    Args:
        params: Params of the run.
        defaults: Values of params that were not set.
    """
    return [
        f"{name}={params[name]} {effect} with {mode}={value}"
        for mode, value, names, effect in _OUT_OF_USE
        if params[mode] == value
        for name in names
        if params[name] != defaults[name] and not (params["teacher"] and name.startswith("embed_"))
    ]
