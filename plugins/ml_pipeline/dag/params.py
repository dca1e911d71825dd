"""The params of the DAGs: one table from which the form, its bounds and the REST API's checks all come."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from airflow.sdk import Param

from ml_pipeline.registry.approval import Approval
from ml_pipeline.registry.gate import Burden
from ml_pipeline.requests.job import DEFAULT_HOURS, LONGEST_HOURS
from ml_pipeline.requests.recipe import APART
from ml_pipeline.requests.search import TuneMode
from ml_pipeline.requests.tuning import TuneStrategy
from ml_pipeline.settings import param_defaults
from model_code import hyperparameters

DOC = """\
**Photos in, a served classifier out.** Give `data` a folder (or an `s3://` prefix) that holds one folder
of photos per class; everything else has a default.

`upload` -> `embed` -> `tune` -> `train` -> `evaluate` -> `gate` -> `register` -> `approve` -> `deploy` ->
`smoke_test`. `plan` says beforehand what it will cost, `report` what it did cost. A task that is cleared or
retried finds its job again; a task that is killed stops it.
"""

BATCH_DOC = """\
Predicts every photo of a folder (or an `s3://` prefix) with the champion of a data set, and leaves one table,
`batch/<job>/predictions.csv`.
"""

JANITOR_DOC = """\
Looks for endpoints that are broken or that nobody calls, endpoint configs and models that nothing uses, and
machines that should be gone: only what carries the tag `project=ml-pipeline`. It removes them only with
`dry_run` off.
"""

TEARDOWN_DOC = """\
Deletes an endpoint with its config, models, alarms and scaling. Data sets, embeddings, model packages and
artefacts stay, so `train_and_deploy` or a deployment of the newest package brings it back.
"""

RETRAINING_DOC = """\
Compares the photos at `data` with the version that the champion was trained on. The same: it skips and says
so. Others: it starts `train_and_deploy` with `conf` and waits for it.

Set `ML_PIPELINE_DEFAULTS` for scheduled runs, and `ML_PIPELINE_QUEUE_URL` to be woken by new objects in S3.
"""

APPROVAL_BODY = """\
{% set judged = ti.xcom_pull(task_ids="evaluate") %}{% set verdict = ti.xcom_pull(task_ids="gate") %}\
Test accuracy **{{ "%.4f" | format(judged["accuracy"]) }}** on {{ judged["photos"] }} photos, served by \
`{{ judged["runtime"] }}`.

Gate: {{ verdict["reason"] }}

[Report]({{ judged["report_url"] }}) (`{{ judged["report_uri"] }}`), model `{{ judged["model_uri"] }}`
"""


class TrainOn(StrEnum):
    """Where the final model is trained."""

    SAGEMAKER = "sagemaker"
    EC2 = "ec2"


_MACHINE = {"type": "string", "pattern": r"^ml\.[a-z0-9-]+\.[a-z0-9]+$"}


def train_and_deploy() -> dict[str, Param]:
    """The params of `train_and_deploy`, by name, in the order of the form."""
    return _with_defaults({**_photos(), **_model(), **_search(), **_machines(), **_service(), **_run()})


def batch_predict() -> dict[str, Param]:
    """The params of `batch_predict`."""
    return _with_defaults(
        {
            "photos": Param(
                "",
                type="string",
                title="Photos",
                description_md="A folder on this machine, or `s3://bucket/prefix`.",
            ),
            "dataset_name": _photos()["dataset_name"],
            "instance_type": Param("ml.m5.large", title="Predict on", **_MACHINE),
            "instance_count": Param(1, type="integer", minimum=1, maximum=20, title="Machines"),
        }
    )


def janitor() -> dict[str, Param]:
    """The params of `janitor`."""
    return _with_defaults(
        {
            "dry_run": Param(
                True, type="boolean", title="Only look", description_md="Off: what is found is removed."
            ),
            "days": Param(7, type="number", minimum=0, title="Unused for (days)"),
            # More than a machine with the longest job lives: those at work are none of the janitor's business.
            "instance_hours": Param(50, type="number", minimum=0, title="Machines older than (hours)"),
        }
    )


def teardown() -> dict[str, Param]:
    """The params of `teardown`."""
    return _with_defaults({"endpoint_name": _service()["endpoint_name"]})


def scheduled_retraining() -> dict[str, Param]:
    """The params of `scheduled_retraining`."""
    return _with_defaults(
        {
            **{name: param for name, param in _photos().items() if name != "weights"},
            "seed": _model()["seed"],
            "force": _run()["force"],
            "conf": Param(
                {},
                type="object",
                title="Params of the training run",
                description_md='Params of `train_and_deploy` by name: `{"trials": 20, "endpoint_name": "dogs"}`.',
            ),
        }
    )


def _with_defaults(params: dict[str, Param]) -> dict[str, Param]:
    """The params with the team's own defaults; one that its schema refuses is an error when the file is parsed."""
    chosen = param_defaults()
    for name in params.keys() & chosen.keys():
        params[name] = Param(chosen[name], **params[name].schema)
        params[name].resolve()
    return params


def _section(title: str, params: dict[str, Param]) -> dict[str, Param]:
    """The params as one section of the form."""
    for param in params.values():
        param.schema["section"] = title
    return params


def _choice(default: StrEnum, **schema: Any) -> Param:
    """One of the values of `default`'s enum."""
    return Param(default.value, type="string", enum=[choice.value for choice in type(default)], **schema)


def _photos() -> dict[str, Param]:
    return _section(
        "Photos",
        {
            "data": Param(
                "",
                type="string",
                title="Photos",
                description_md=(
                    "A folder on this machine, or `s3://bucket/prefix`, with one folder of photos per class."
                ),
            ),
            "dataset_name": Param(
                "photos",
                type="string",
                pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$",
                title="Data set",
                description_md="Versions of the same data set share shards, splits, embeddings and the champion.",
            ),
            "weights": Param(
                "imagenet",
                type="string",
                minLength=1,
                title="Weights",
                description_md="`imagenet`, `none`, or a state_dict file: a path, `s3://` or `https://`.",
            ),
        },
    )


def _model() -> dict[str, Param]:
    return _section(
        "Model",
        {
            "strategy": _choice(
                hyperparameters.Strategy.HEAD,
                title="Strategy",
                description_md=(
                    "`head` trains a classifier on embeddings (seconds); `finetune` trains the backbone too."
                ),
            ),
            "architecture": Param(
                "mobilenet_v2",
                type="string",
                pattern=r"^[a-z0-9_]+$",
                title="Architecture",
                description_md="Any torchvision classification model.",
            ),
            "views": Param(
                1,
                type="integer",
                minimum=1,
                maximum=64,
                title="Views",
                description_md="Embeddings per training photo: 1 is the photo itself, more are random crops.",
            ),
            "seed": Param(0, type="integer", minimum=0, maximum=2**31 - 1, title="Seed"),
            "hyperparameters": Param(
                {},
                title="Fixed hyperparameters",
                description_md=(
                    'Values that are not searched, by name: `{"epochs": 60, "dropout": 0.3}`. '
                    "`python -m model_code.hyperparameters` prints the names."
                ),
                **hyperparameters.schema(without=APART),
            ),
        },
    )


def _search() -> dict[str, Param]:
    return _section(
        "Search",
        {
            "tune_mode": _choice(
                TuneMode.JOB,
                title="Trials run",
                description_md=(
                    "`job`: each in a job of its own, by a SageMaker tuning job; `packed`: all in one job, which saves "
                    "the start-up of each."
                ),
            ),
            "trials": Param(12, type="integer", minimum=1, maximum=750, title="Trials"),
            "parallel_trials": Param(2, type="integer", minimum=1, maximum=100, title="Trials at once"),
            "tune_strategy": _choice(
                TuneStrategy.BAYESIAN,
                title="Search strategy",
                description_md=(
                    "`packed` takes Bayesian and Random. Grid tries every combination of choices, so all of the search "
                    'space must be such: `{"dropout": {"choices": [0.1, 0.3]}, "mixup": null, ...}`.'
                ),
            ),
            "early_stopping": Param(
                False,
                type="boolean",
                title="Stop trials that fall behind",
            ),
            "target": Param(
                None,
                type=["number", "null"],
                minimum=0,
                maximum=1,
                title="Stop at this accuracy",
            ),
            "patience_trials": Param(
                None,
                type=["integer", "null"],
                minimum=3,
                title="Stop after so many trials without a better one",
            ),
            "stop_when_converged": Param(False, type="boolean", title="Stop when a better trial is unlikely"),
            "warm_start": Param(
                False,
                type="boolean",
                title="Warm start",
                description_md="Begin with what the last search of the same data set learnt. Not with `packed`.",
            ),
            "ranges": Param(
                None,
                type=["object", "null"],
                title="Search space",
                description_md=(
                    'Changes to it by name: `{"dropout": {"low": 0.1, "high": 0.5}, "mixup": null}`; '
                    "null takes a name out. `python -m model_code.hyperparameters` prints the space."
                ),
            ),
        },
    )


def _machines() -> dict[str, Param]:

    def machine(default: str, title: str) -> Param:
        return Param(default, title=title, **_MACHINE)

    def count(title: str) -> Param:
        return Param(1, type="integer", minimum=1, maximum=20, title=title)

    return _section(
        "Machines",
        {
            "embed_instance_type": machine("ml.m5.xlarge", "Embed on"),
            "embed_instance_count": count("Machines that share the shards"),
            "tune_instance_type": machine("ml.m5.xlarge", "Trials on"),
            "train_on": _choice(
                TrainOn.SAGEMAKER,
                title="Train with",
                description_md="`ec2`: on a machine of its own, started for this run and terminated after it.",
            ),
            "train_instance_type": machine("ml.m5.xlarge", "Train on"),
            "train_instance_count": count("Machines that train one model"),
            "evaluate_instance_type": machine("ml.m5.xlarge", "Evaluate on"),
            "spot": Param(
                False,
                type="boolean",
                title="Managed spot",
                description_md="Cheaper machines that may be taken away; training resumes from its checkpoint.",
            ),
            "keep_alive": Param(
                0,
                type="integer",
                minimum=0,
                maximum=3600,
                title="Keep machines warm (s)",
                description_md="Saves the start-up of the next job; billed. Not with spot.",
            ),
            "max_job_hours": Param(
                DEFAULT_HOURS,
                type="number",
                minimum=0.1,
                maximum=LONGEST_HOURS,
                title="Longest job (h)",
                description_md=(
                    "A training, a trial, a `packed` search or an evaluation that runs longer is stopped, and what it "
                    "did is lost. `plan` refuses a run that would need more."
                ),
            ),
        },
    )


def _service() -> dict[str, Param]:
    return _section(
        "Service",
        {
            "min_accuracy": Param(
                None,
                type=["number", "null"],
                minimum=0,
                maximum=1,
                title="Least accuracy",
                description_md="Bar on the test split; empty: better than guessing.",
            ),
            "margin": Param(
                0.0,
                type="number",
                minimum=0,
                maximum=1,
                title="Margin",
                description_md="Accuracy that a new model may lose against the champion.",
            ),
            "burden": _choice(
                Burden.CHAMPION,
                title="Who has to prove it",
                description_md=(
                    "`champion`: the new model passes unless it is shown to be worse; `challenger`: only if it is "
                    "shown to be no worse (95 % bootstrap interval)."
                ),
            ),
            "approval": _choice(
                Approval.AUTO,
                title="Approval",
                description_md=(
                    "`human`: a person approves the model, with the report at hand, before it is deployed."
                ),
            ),
            "endpoint_name": Param(
                "photo-classifier",
                type="string",
                pattern=r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}$",
                # The pattern counts letters and digits, not hyphens.
                maxLength=63,
                title="Endpoint",
            ),
            "endpoint_instance_type": Param("ml.m5.large", title="Serve on", **_MACHINE),
            "endpoint_instance_count": Param(
                1, type="integer", minimum=1, maximum=20, title="Serving machines"
            ),
            "endpoint_max_count": Param(
                1,
                type="integer",
                minimum=1,
                maximum=100,
                title="Most serving machines",
                description_md="Above the number of serving machines, the endpoint scales with its load.",
            ),
            "canary_percent": Param(
                25,
                type="integer",
                minimum=5,
                maximum=50,
                title="Canary (%)",
                description_md="Share of the fleet that takes traffic first when a live endpoint is updated.",
            ),
            "bake_seconds": Param(
                None,
                type=["integer", "null"],
                minimum=0,
                maximum=3600,
                title="Watch the canary (s)",
                description_md="An alarm within this time rolls the update back; empty: 120 on AWS, 2 on local_aws.",
            ),
        },
    )


def _run() -> dict[str, Param]:
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
                title="Compute everything again",
                description_md="Also what is there already: embeddings, and a data set that did not change.",
            ),
        },
    )
