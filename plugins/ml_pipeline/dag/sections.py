"""The params of `train_and_deploy`, section by section of its form; other DAGs share some."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from airflow.sdk import Param

from ml_pipeline.registry.approval import Approval
from ml_pipeline.registry.gate import Burden
from ml_pipeline.requests.endpoint import CAPTURE_DAYS
from ml_pipeline.requests.job import DEFAULT_HOURS, LONGEST_HOURS
from ml_pipeline.requests.recipe import APART
from ml_pipeline.requests.search import TuneMode
from ml_pipeline.requests.tuning import TuneStrategy
from ml_pipeline.triggers.base import DEFAULT_PATIENCE_SECONDS
from model_code import hyperparameters


class TrainOn(StrEnum):
    """The service that trains the final model."""

    SAGEMAKER = "sagemaker"
    EC2 = "ec2"


DATASET = r"^([a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?)?$"
ENDPOINT = r"^([a-zA-Z0-9](-*[a-zA-Z0-9]){0,62})?$"
MACHINE = {"type": "string", "pattern": r"^ml\.[a-z0-9-]+\.[a-z0-9]+$"}


def outage() -> Param:
    """Return the limit of a wait without an answer from AWS."""
    return Param(
        DEFAULT_PATIENCE_SECONDS / 3600,
        type="number",
        minimum=0.1,
        maximum=168,
        title="Longest outage (h)",
        description_md=(
            "A wait for paid work goes on this long without an answer from AWS: expired credentials, clock skew, "
            "throttling, resets, 5xx."
        ),
    )


def _section(title: str, params: dict[str, Param]) -> dict[str, Param]:
    """Put the params into one section of the form."""
    for param in params.values():
        param.schema["section"] = title
    return params


def _choice(default: StrEnum, **schema: Any) -> Param:
    """Make a param that takes the values of `default`'s enum."""
    return Param(default.value, type="string", enum=[choice.value for choice in type(default)], **schema)


def photos() -> dict[str, Param]:
    """Return the params of the photos."""
    return _section(
        "Photos",
        {
            "data": Param(
                "",
                type="string",
                title="Photos",
                description_md=(
                    "A folder on this machine or `s3://bucket/prefix`, with one folder of photos per class; or a table "
                    "of photos and labels (`.csv`, `.jsonl`, `.manifest`)."
                ),
            ),
            "dataset_name": Param(
                "",
                type="string",
                pattern=DATASET,
                title="Data set",
                description_md=(
                    "Versions of the same data set share shards, splits, embeddings and the champion. Empty: the name "
                    "of the photos' folder."
                ),
            ),
            "group_lookalikes": Param(
                True,
                type="boolean",
                title="Group copies",
                description_md=(
                    "Keep copies of the same picture (resized, recompressed) in one split. Off for photos that only "
                    "look the same."
                ),
            ),
            "weights": Param(
                "imagenet",
                type="string",
                minLength=1,
                title="Weights",
                description_md="Backbone's weights: `imagenet`, `none`, or a state_dict file (a path, `s3://`, `https://`).",
            ),
        },
    )


def model() -> dict[str, Param]:
    """Return the params of the model."""
    return _section(
        "Model",
        {
            "strategy": _choice(
                hyperparameters.Strategy.HEAD,
                title="Strategy",
                description_md=(
                    "`head` trains a classifier on embeddings, in seconds; `finetune` also trains the backbone."
                ),
            ),
            "architecture": Param(
                "mobilenet_v2",
                type="string",
                pattern=r"^(timm:)?[a-z0-9_]+$",
                title="Architecture",
                description_md=(
                    "Any classification model of torchvision, or of timm by `timm:<name>`, like "
                    "`timm:tf_efficientnet_lite0`; `plan` refuses others."
                ),
            ),
            "views": Param(
                1,
                type="integer",
                minimum=1,
                maximum=64,
                title="Views",
                description_md="Embeddings per training photo: the photo itself, then random crops.",
            ),
            "seed": Param(
                0,
                type="integer",
                minimum=0,
                maximum=2**31 - 1,
                title="Seed",
                description_md="Shuffles the split of a new data set, and starts trainings.",
            ),
            "hyperparameters": Param(
                {},
                title="Fixed hyperparameters",
                description_md=(
                    'Fixed values by name, which are not searched: `{"epochs": 60, "dropout": 0.3}`. '
                    "`python -m model_code.hyperparameters` prints the names."
                ),
                **hyperparameters.schema(without=APART),
            ),
        },
    )


def search() -> dict[str, Param]:
    """Return the params of the search."""
    return _section(
        "Search",
        {
            "tune_mode": _choice(
                TuneMode.JOB,
                title="Trials in",
                description_md=(
                    "`job`: one job per trial, run by a SageMaker tuning job; `packed`: all in a single job, which "
                    "saves their start-up."
                ),
            ),
            "trials": Param(
                12,
                type="integer",
                minimum=1,
                maximum=750,
                title="Trials",
                description_md="Maximum number of trials.",
            ),
            "parallel_trials": Param(
                2,
                type="integer",
                minimum=1,
                maximum=100,
                title="Parallel trials",
                description_md="Trials that run at the same time.",
            ),
            "tune_strategy": _choice(
                TuneStrategy.BAYESIAN,
                title="Search strategy",
                description_md=(
                    "`packed` accepts Bayesian and Random. Grid tries every combination of choices, so the whole "
                    'search space must be choices: `{"dropout": {"choices": [0.1, 0.3]}, "mixup": null, ...}`.'
                ),
            ),
            "early_stopping": Param(
                False,
                type="boolean",
                title="Early stopping",
                description_md="Let SageMaker stop trials that fall behind.",
            ),
            "target": Param(
                None,
                type=["number", "null"],
                minimum=0,
                maximum=1,
                title="Target accuracy",
                description_md="Stop the search when a trial reaches it on the validation split.",
            ),
            "patience_trials": Param(
                None,
                type=["integer", "null"],
                minimum=3,
                title="Patience (trials)",
                description_md="Stop the search after this many trials without an improvement.",
            ),
            "stop_when_converged": Param(
                False,
                type="boolean",
                title="Stop when converged",
                description_md="Stop the search when SageMaker finds a better trial unlikely.",
            ),
            "warm_start": Param(
                False,
                type="boolean",
                title="Warm start",
                description_md="Start from the last search of the same data set. Not with `packed`.",
            ),
            "ranges": Param(
                None,
                type=["object", "null"],
                title="Search space",
                description_md=(
                    'Changes to the table by name: `{"dropout": {"low": 0.1, "high": 0.5}, "mixup": null}`; '
                    "null excludes a name. `python -m model_code.hyperparameters` prints the space."
                ),
            ),
        },
    )


def machines() -> dict[str, Param]:
    """Return the params of the instances."""

    def machine(title: str, use: str) -> Param:
        return Param("ml.m5.xlarge", title=title, description_md=use, **MACHINE)

    def count(title: str, use: str) -> Param:
        return Param(1, type="integer", minimum=1, maximum=20, title=title, description_md=use)

    return _section(
        "Instances",
        {
            "embed_instance_type": machine("Embedding instance type", "Runs the embeddings."),
            "embed_instance_count": count("Embedding instances", "They share the shards."),
            "tune_instance_type": machine(
                "Tuning instance type", "Runs each trial; with `packed`, the whole search."
            ),
            "train_on": _choice(
                TrainOn.SAGEMAKER,
                title="Train with",
                description_md="`ec2`: on an instance that is started for this run and terminated after it.",
            ),
            "train_instance_type": machine("Training instance type", "Trains the final model."),
            "train_instance_count": count("Training instances", "They train one model together."),
            "evaluate_instance_type": machine(
                "Evaluation instance type", "Evaluates the new model and the champion."
            ),
            "spot": Param(
                False,
                type="boolean",
                title="Managed spot",
                description_md="Cheaper instances that AWS may take back; training resumes from its checkpoint.",
            ),
            "keep_alive": Param(
                0,
                type="integer",
                minimum=0,
                maximum=3600,
                title="Keep instances warm (s)",
                description_md="Saves the start-up of the next job; billed. Not with spot.",
            ),
            "max_job_hours": Param(
                DEFAULT_HOURS,
                type="number",
                minimum=0.1,
                maximum=LONGEST_HOURS,
                title="Longest job (h)",
                description_md=(
                    "A training, a trial, a `packed` search or an evaluation that runs longer is stopped and its work "
                    "lost. `plan` refuses a run that would need more."
                ),
            ),
        },
    )


def service() -> dict[str, Param]:
    """Return the params of the gate and the endpoint."""
    return _section(
        "Service",
        {
            "max_suspect_share": Param(
                None,
                type=["null", "number"],
                minimum=0,
                maximum=1,
                title="Most wrong labels",
                description_md=(
                    "Stop before tuning if a larger share of the labels looks wrong; empty: only report them."
                ),
            ),
            "min_accuracy": Param(
                None,
                type=["number", "null"],
                minimum=0,
                maximum=1,
                title="Minimum accuracy",
                description_md="On the test split; empty: clearly better than always naming the most frequent class.",
            ),
            "margin": Param(
                0.0,
                type="number",
                minimum=0,
                maximum=1,
                title="Margin",
                description_md="Accuracy that a new model may lose against the champion, as a fraction.",
            ),
            "burden": _choice(
                Burden.CHAMPION,
                title="Burden of proof",
                description_md=(
                    "`champion`: the new model passes unless it is shown to be worse; `challenger`: it passes only if "
                    "it is shown to be no worse (95 % bootstrap interval)."
                ),
            ),
            "approval": _choice(
                Approval.AUTO,
                title="Approval",
                description_md=("`human`: a person approves the model before it is deployed."),
            ),
            "endpoint_name": Param(
                "",
                type="string",
                pattern=ENDPOINT,
                # The pattern counts letters and digits, not hyphens.
                maxLength=63,
                title="Endpoint",
                description_md="Empty: the name of the data set.",
            ),
            "replace_endpoint": Param(
                False,
                type="boolean",
                title="Replace the endpoint",
                description_md=(
                    "Take over an endpoint that serves another data set, or classes that the photos no longer have; a "
                    "person then has to approve."
                ),
            ),
            "endpoint_instance_type": Param(
                "ml.m5.large",
                title="Endpoint instance type",
                description_md="Serves the model.",
                **MACHINE,
            ),
            "endpoint_instance_count": Param(
                1,
                type="integer",
                minimum=1,
                maximum=20,
                title="Endpoint instances",
                description_md="Billed until the endpoint is taken down.",
            ),
            "endpoint_max_count": Param(
                1,
                type="integer",
                minimum=1,
                maximum=100,
                title="Maximum instances",
                description_md="Above the number of endpoint instances, the endpoint scales with its load.",
            ),
            "canary_percent": Param(
                25,
                type="integer",
                minimum=5,
                maximum=50,
                title="Canary (%)",
                description_md="Share of the fleet that receives traffic first when a live endpoint is updated.",
            ),
            "bake_seconds": Param(
                None,
                type=["integer", "null"],
                minimum=0,
                maximum=3600,
                title="Bake time (s)",
                description_md="An alarm within this time rolls an update back; empty: 120 on AWS, 2 on local_aws.",
            ),
            "capture_percent": Param(
                100,
                type="integer",
                minimum=1,
                maximum=100,
                title="Capture (%)",
                description_md="Share of requests that is kept for `watch`, where a retention is set.",
            ),
            "capture_days": Param(
                None,
                type=["integer", "null"],
                enum=[None, *CAPTURE_DAYS],
                title="Keep captures (days)",
                description_md=(
                    "Photos and answers are kept for so long, for `watch` to look at; empty: nothing is kept. They may "
                    "show people: docs/security.md."
                ),
            ),
        },
    )


def run() -> dict[str, Param]:
    """Return the params of the run."""
    return _section(
        "Run",
        {
            "budget_usd": Param(
                None,
                type=["number", "null"],
                minimum=0,
                title="Budget (USD)",
                description_md="A run whose estimate is higher is refused before anything starts.",
            ),
            "force": Param(
                False,
                type="boolean",
                title="Recompute",
                description_md="Also embeddings and photos that exist, and a training on an unchanged data set.",
            ),
            "max_outage_hours": outage(),
        },
    )
