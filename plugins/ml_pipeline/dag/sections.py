"""The params of `train_and_deploy`, section by section of its form; other DAGs share some."""

from __future__ import annotations

from enum import StrEnum

from airflow.sdk import Param

from ml_pipeline.costs import machines
from ml_pipeline.dag.fields import choice, field, integer, machine, number, switch, text
from ml_pipeline.registry.approval import Approval
from ml_pipeline.registry.gate import Burden
from ml_pipeline.requests.endpoint import CAPTURE_DAYS
from ml_pipeline.requests.job import DEFAULT_HOURS, LONGEST_HOURS
from ml_pipeline.requests.recipe import APART
from ml_pipeline.requests.search import TuneMode
from ml_pipeline.requests.tuning import TuneStrategy
from ml_pipeline.triggers.base import DEFAULT_PATIENCE_SECONDS
from model_code import hyperparameters

Form = dict[str, Param]


class TrainOn(StrEnum):
    """The service that trains the final model."""

    SAGEMAKER = "sagemaker"
    EC2 = "ec2"


def dataset(use: str) -> Param:
    """Return the field of a data set's name."""
    return text("", "Data set", use, pattern=r"^([a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?)?$")


def endpoint(use: str) -> Param:
    """Return the field of an endpoint's name."""
    # The pattern counts letters and digits, not hyphens.
    return text("", "Endpoint", use, pattern=r"^([a-zA-Z0-9](-*[a-zA-Z0-9]){0,62})?$", maxLength=63)


def outage() -> Param:
    """Return the limit of a wait without an answer from AWS."""
    use = (
        "A wait for paid work goes on this long without an answer from AWS: expired credentials, clock skew, "
        "throttling, resets, 5xx."
    )
    return number(DEFAULT_PATIENCE_SECONDS / 3600, (0.1, 168), "Longest outage (h)", use)


def _section(title: str, **params: Param) -> Form:
    """Put the params into one section of the form."""
    for param in params.values():
        param.schema["section"] = title
    return params


def photos() -> Form:
    """Return the params of the photos."""
    return _section(
        "Photos",
        data=text(
            "",
            "Photos",
            "A folder on this machine or `s3://bucket/prefix`, with one folder of photos per class; or a table "
            "of photos and labels (`.csv`, `.jsonl`, `.manifest`).",
        ),
        dataset_name=dataset(
            "Versions of the same data set share shards, splits, embeddings and the champion. Empty: the name "
            "of the photos' folder."
        ),
        group_lookalikes=switch(
            True,
            "Group copies",
            "Keep copies of the same picture (resized, recompressed) in one split. Off for photos that only "
            "look the same.",
        ),
        weights=text(
            "imagenet",
            "Weights",
            "Backbone's weights: `imagenet`, `none`, or a state_dict file (a path, `s3://`, `https://`).",
            minLength=1,
        ),
    )


def model() -> Form:
    """Return the params of the model."""
    return _section(
        "Model",
        strategy=choice(
            hyperparameters.Strategy.HEAD,
            "Strategy",
            "`head` trains a classifier on embeddings, in seconds; `finetune` also trains the backbone.",
        ),
        architecture=text(
            "mobilenet_v2",
            "Architecture",
            "Any classification model of torchvision, or of timm by `timm:<name>`, like "
            "`timm:tf_efficientnet_lite0`; `plan` refuses others.",
            pattern=r"^(timm:)?[a-z0-9_]+$",
        ),
        teacher=text(
            "",
            "Teacher",
            "A bigger network to learn from, as `<architecture>` or `<architecture>=<weights>`, like "
            "`timm:tf_efficientnet_lite2`, or the ARN of a registered model. Its answers join the loss "
            "(`distillation`). Empty: none.",
            pattern=r"^(arn:.+|(timm:)?[a-z0-9_]+(=.+)?)?$",
        ),
        views=integer(
            1, (1, 64), "Views", "Embeddings per training photo: the photo itself, then random crops."
        ),
        seed=integer(
            0, (0, 2**31 - 1), "Seed", "Shuffles the split of a new data set, and starts trainings."
        ),
        hyperparameters=Param(
            {},
            title="Fixed hyperparameters",
            description_md=(
                'Fixed values by name, which are not searched: `{"epochs": 60, "dropout": 0.3}`. '
                "`python -m model_code.hyperparameters` prints the names."
            ),
            **hyperparameters.schema(without=APART),
        ),
    )


def search() -> Form:
    """Return the params of the search."""
    return _section(
        "Search",
        tune_mode=choice(
            TuneMode.JOB,
            "Trials in",
            "`job`: one job per trial, run by a SageMaker tuning job; `packed`: all in a single job, which "
            "saves their start-up.",
        ),
        trials=integer(12, (1, 750), "Trials", "Maximum number of trials."),
        parallel_trials=integer(2, (1, 100), "Parallel trials", "Trials that run at the same time."),
        tune_strategy=choice(
            TuneStrategy.BAYESIAN,
            "Search strategy",
            "`packed` accepts Bayesian and Random. Grid tries every combination of choices, so the whole "
            'search space must be choices: `{"dropout": {"choices": [0.1, 0.3]}, "mixup": null, ...}`.',
        ),
        early_stopping=switch(False, "Early stopping", "Let SageMaker stop trials that fall behind."),
        target=number(
            None,
            (0, 1),
            "Target accuracy",
            "Stop the search when a trial reaches it on the validation split.",
        ),
        patience_trials=integer(
            None,
            (3, None),
            "Patience (trials)",
            "Stop the search after this many trials without an improvement.",
        ),
        stop_when_converged=switch(
            False, "Stop when converged", "Stop the search when SageMaker finds a better trial unlikely."
        ),
        warm_start=switch(
            False, "Warm start", "Start from the last search of the same data set. Not with `packed`."
        ),
        ranges=field(
            None,
            "object",
            "Search space",
            'Changes to the table by name: `{"dropout": {"low": 0.1, "high": 0.5}, "mixup": null}`; '
            "null excludes a name. `python -m model_code.hyperparameters` prints the space.",
        ),
    )


def instances() -> Form:
    """Return the params of the instances."""
    return _section(
        "Instances",
        prepare_instance_type=machine(
            machines.AUTO,
            "Preparing instance type",
            f"Where photos become a data set version. `auto`: the Airflow worker, or {machines.MANY_CORES} for "
            f"{machines.MANY_PHOTOS:,} new photos or more below an `s3://` prefix; `worker`: always the worker, as for "
            "local photos and tables.",
            other=machines.WORKER,
        ),
        embed_instance_type=machine(
            machines.AUTO,
            "Embedding instance type",
            f"`auto`: {machines.CPU} or, where it is cheaper (many photos), {machines.GPU}.",
        ),
        embed_instance_count=integer(1, (1, 20), "Embedding instances", "They share the shards."),
        tune_instance_type=machine(
            machines.AUTO,
            "Tuning instance type",
            "Runs each trial; with `packed`, the whole search. `auto`: as for training.",
        ),
        train_on=choice(
            TrainOn.SAGEMAKER,
            "Train with",
            "`ec2`: on an instance that is started for this run and terminated after it.",
        ),
        train_instance_type=machine(
            machines.AUTO,
            "Training instance type",
            f"`auto`: {machines.CPU} for a head, {machines.GPU} for fine-tuning. Several, with commas: the first that "
            "AWS has capacity for.",
            several=True,
        ),
        train_instance_count=integer(1, (1, 20), "Training instances", "They train one model together."),
        evaluate_instance_type=machine(
            machines.CPU, "Evaluation instance type", "Evaluates the new model and the champion."
        ),
        spot=switch(
            False,
            "Managed spot",
            "Cheaper instances that AWS may take back; training resumes from its checkpoint.",
        ),
        keep_alive=integer(
            0,
            (0, 3600),
            "Keep instances warm (s)",
            "Saves the start-up of the next job; billed. Not with spot.",
        ),
        max_job_hours=number(
            DEFAULT_HOURS,
            (0.1, LONGEST_HOURS),
            "Longest job (h)",
            "A training, a trial, a `packed` search or an evaluation that runs longer is stopped and its work "
            "lost. `plan` refuses a run that would need more.",
        ),
    )


def service() -> Form:
    """Return the params of the gate and the endpoint."""
    return _section(
        "Service",
        max_suspect_share=number(
            None,
            (0, 1),
            "Most wrong labels",
            "Stop before tuning if a larger share of the labels looks wrong; empty: only report them.",
        ),
        min_accuracy=number(
            None,
            (0, 1),
            "Minimum accuracy",
            "On the test split; empty: clearly better than always naming the most frequent class.",
        ),
        margin=number(
            0.0, (0, 1), "Margin", "Accuracy that a new model may lose against the champion, as a fraction."
        ),
        burden=choice(
            Burden.CHAMPION,
            "Burden of proof",
            "`champion`: the new model passes unless it is shown to be worse; `challenger`: it passes only if "
            "it is shown to be no worse (95 % bootstrap interval).",
        ),
        approval=choice(
            Approval.AUTO, "Approval", "`human`: a person approves the model before it is deployed."
        ),
        endpoint_name=endpoint("Empty: the name of the data set."),
        replace_endpoint=switch(
            False,
            "Replace the endpoint",
            "Take over an endpoint that serves another data set, or classes that the photos no longer have; a "
            "person then has to approve.",
        ),
        endpoint_instance_type=machine(
            "ml.m5.large",
            "Endpoint instance type",
            "Serves the model. Several, with commas: the first that AWS has capacity for.",
            several=True,
        ),
        endpoint_instance_count=integer(
            1, (1, 20), "Endpoint instances", "Billed until the endpoint is taken down."
        ),
        endpoint_max_count=integer(
            1,
            (1, 100),
            "Maximum instances",
            "Above the number of endpoint instances, the endpoint scales with its load.",
        ),
        canary_percent=integer(
            25,
            (5, 50),
            "Canary (%)",
            "Share of the fleet that receives traffic first when a live endpoint is updated.",
        ),
        bake_seconds=integer(
            None,
            (0, 3600),
            "Bake time (s)",
            "An alarm within this time rolls an update back; empty: 120 on AWS, 2 on local_aws.",
        ),
        capture_percent=integer(
            100,
            (1, 100),
            "Capture (%)",
            "Share of requests that is kept for `watch`, where a retention is set.",
        ),
        capture_days=field(
            None,
            "integer",
            "Keep captures (days)",
            "Photos and answers are kept for so long, for `watch` to look at; empty: nothing is kept. They may "
            "show people: docs/security.md.",
            enum=[None, *CAPTURE_DAYS],
        ),
    )


def run() -> Form:
    """Return the params of the run."""
    return _section(
        "Run",
        budget_usd=number(
            None,
            (0, None),
            "Budget (USD)",
            "A run whose estimate is higher is refused before anything starts.",
        ),
        force=switch(
            False,
            "Recompute",
            "Also embeddings and photos that exist, and a training on an unchanged data set.",
        ),
        max_outage_hours=outage(),
    )
