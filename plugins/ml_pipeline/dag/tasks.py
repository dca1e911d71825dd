"""The Python tasks of the DAGs: settings and clients in, one call, a small result out.

Everything heavy is imported inside the functions: the DAG files import this module again and again.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow.sdk import task

from ml_pipeline.aws.clients import AwsAccess, Client
from ml_pipeline.dag import assets
from ml_pipeline.requests.types import (
    Billed,
    Chosen,
    Deployed,
    Evaluated,
    Params,
    Planned,
    SmokeTested,
    Staged,
    StoredWeights,
    Swept,
    Tabled,
    TakenDown,
    Taught,
    Transformed,
    Uploaded,
)
from ml_pipeline.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.types import RuntimeTaskInstanceProtocol as TaskInstance

log = logging.getLogger(__name__)


@task(outlets=[assets.PLANS])
def plan(params: Params | None = None) -> Planned:
    """Estimate cost and time; refuse a run that is impossible, over budget or would take over an endpoint."""
    from ml_pipeline.aws import s3 as objects
    from ml_pipeline.costs import checks, plan
    from ml_pipeline.dag import params as form
    from ml_pipeline.dataset.weights import check_architecture, teacher_of
    from ml_pipeline.deployment import takeover
    from ml_pipeline.registry import packages

    params = {**(params or {})}
    form.check_names("train_and_deploy", params)
    params["data"] = params["data"] or ""  # the form sends null for an empty field
    settings = Settings.load()
    s3, sagemaker = client("s3"), client("sagemaker")
    checks.check_machines(params, sagemaker, client("ec2") if params["train_on"] == "ec2" else None)
    check_architecture(params["architecture"])
    taught_by = teacher_of(params["teacher"])[0]
    if taught_by.startswith("arn:"):
        packages.describe(sagemaker, taught_by)
    elif taught_by:
        check_architecture(taught_by)
    objects.ensure_bucket(settings, s3)
    target = takeover.target(sagemaker, s3, settings, params)
    defaults = {name: param.value for name, param in form.train_and_deploy().items()}
    chosen = {**params, "dataset_name": target.dataset_name, "endpoint_name": target.endpoint_name}
    endpoints = takeover.billed(sagemaker, s3)
    planned = plan.make(chosen, defaults, settings, s3, endpoints, target.replaces)
    for step in planned["steps"]:
        usd = "price unknown" if step["usd"] is None else f"${step['usd']:.4f}"
        log.info(
            "%-9s %d x %-15s %8.0f s  %s",
            *(step["step"], step["instance_count"], step["instance_type"], step["seconds"], usd),
        )
    for line in [*planned["out_of_use"], *takeover.warnings(target, planned["endpoints"])]:
        log.warning("%s", line)
    log.info(
        "about $%.2f, and $%.2f for the requests of upload to S3; %s",
        *(planned["estimate_usd"], planned["requests_usd"], planned["note"]),
    )
    return planned


def check_form(context: Context) -> None:
    """Refuse params that the DAG does not have: `pre_execute` of an operator that comes first."""
    from airflow.sdk.exceptions import AirflowFailException

    from ml_pipeline.dag import params as form

    try:
        form.check_names(context["ti"].dag_id, context["params"])
    except ValueError as error:  # Airflow 3.2 asks no retry policy about what happens before `execute`
        raise AirflowFailException(str(error)) from error


@task
def weights(weights: str, architecture: str) -> StoredWeights:
    """Bring the backbone's weights to S3."""
    from ml_pipeline.dataset.weights import store_weights

    settings = Settings.load()
    return store_weights(
        client("s3"),
        settings.bucket,
        weights,
        architecture,
        lambda done, total: _progress(done, total, "bytes"),
    )


@task
def teacher(teacher: str) -> Taught:
    """Bring the network to learn from to S3, if the run has one: a library's, or a registered model."""
    from ml_pipeline.dataset import weights as stored
    from ml_pipeline.registry import packages

    architecture, source = stored.teacher_of(teacher)
    bucket = Settings.load().bucket
    if architecture.startswith("arn:"):
        package = packages.describe(client("sagemaker"), architecture)
        packages.refuse_overwritten(client("s3"), package)
        return stored.store_model(client("s3"), bucket, package.model_uri)
    return {**stored.store_weights(client("s3"), bucket, source, architecture), "architecture": architecture}


@task.branch
def choose(train_on: str) -> str:
    """Choose the branch that trains the final model."""
    return "train" if train_on == "sagemaker" else "ec2.create"


@task
def smoke_test(
    dataset: Uploaded | Chosen, evaluation: Evaluated | Chosen, deployment: Deployed
) -> SmokeTested:
    """Send test photos to the endpoint and compare its answers with the evaluation's.

    When it passes, the config before is removed; when it fails, that config goes back into service.
    """
    from airflow.sdk import get_current_context

    from ml_pipeline.deployment import rollback, smoke_test
    from ml_pipeline.errors import will_retry
    from ml_pipeline.registry import packages as registry

    sagemaker = client("sagemaker")
    smoke_test.check_in_service(sagemaker, deployment)
    try:
        result = smoke_test.run(
            client("s3"), client("sagemaker-runtime"), dataset, evaluation, deployment["endpoint_name"]
        )
    except Exception as error:
        # Also when the last try was only throttled: a model that could not be asked must not serve.
        if not will_retry(error, get_current_context()["ti"]):
            log.warning("%s", rollback.roll_back(sagemaker, deployment, str(error)))
        raise
    registry.reinstate(sagemaker, deployment["model_package_arn"])
    if deployment.get("previous_config_name"):
        rollback.retire(sagemaker, deployment["endpoint_name"], str(deployment["previous_config_name"]))
    return result


@task(outlets=[assets.BILLS])
def bill(params: Params | None = None, ti: TaskInstance | None = None) -> Billed:
    """Hold the bill against the plan, and compare instance types by what was measured on them."""
    from ml_pipeline.costs import bill, rates
    from ml_pipeline.costs.prices import Prices
    from ml_pipeline.registry import tracking

    assert ti is not None
    assert params is not None
    settings = Settings.load()
    prices, s3 = Prices.load(settings), client("s3")
    if settings.mlflow:
        tracking.begin_import()
    results = {step: ti.xcom_pull(task_ids=step) for step in bill.BILLED}
    made = bill.make(client("sagemaker"), prices, results)
    for rate in bill.measured(client("logs"), settings, made["steps"], results, params):
        rates.record(s3, settings, rate)
    table = rates.comparison(rates.load(s3, settings), prices, params["architecture"])
    for line in [*bill.table(ti.xcom_pull(task_ids="plan"), made), "", *rates.lines(table)]:
        log.info("%s", line)
    log.info("about $%.4f; %s", made["usd"], made["note"])
    if settings.mlflow:
        told = ("register", "smoke_test")
        known = {**results, **{step: ti.xcom_pull(task_ids=step) for step in told}}
        tracking.send(settings.mlflow, s3, f"{ti.dag_id}/{ti.run_id}", known)
    return {**made, "instances": table, "formula": rates.FORMULA}


@task
def decide(
    dataset: Uploaded,
    data: str,
    seed: int,
    group_lookalikes: bool,
    force: bool,
    conf: Params,
    ti: TaskInstance | None = None,
) -> dict[str, Any]:
    """Skip, saying why, when the champion was trained on these very photos; else return the training run's conf.

    The run gets the same photos and seed, so that it makes the version that was looked at here. From others, its model
    would never be that version's, and every look would train again.
    """
    from airflow.sdk.exceptions import AirflowSkipException

    from ml_pipeline.registry import packages as registry
    from ml_pipeline.registry import retraining

    assert ti is not None
    champion = registry.champion(client("sagemaker"), dataset["name"])
    decision = retraining.decide(dataset, champion, force)
    log.info("%s", decision.reason)
    ti.xcom_push(key="reason", value=decision.reason)
    if not decision.train:
        raise AirflowSkipException(decision.reason)
    return {
        **conf,
        "data": data,
        "seed": seed,
        "group_lookalikes": group_lookalikes,
        "dataset_name": dataset["name"],
        "force": force,
    }


@task(multiple_outputs=True, inlets=[assets.MODELS], outlets=[assets.PLANS])
def choose_version(params: Params | None = None) -> Chosen:
    """Choose the model version, and refuse what cannot be deployed."""
    from ml_pipeline.dag import params as form
    from ml_pipeline.deployment import choice

    params = params or {}
    form.check_names("deploy", params)
    chosen = choice.choose(
        client("sagemaker"), client("s3"), client("application-autoscaling"), Settings.load(), params
    )
    log.info(
        "version %(version)d of %(dataset_name)s goes to endpoint %(endpoint_name)s, %(instance_count)d x "
        "%(instance_type)s",
        chosen,
    )
    return chosen


@task
def keep_champion(chosen: Chosen) -> dict[str, list[int]]:
    """Make the version that serves the champion: approved versions newer than it are rejected, until deployed again."""
    from ml_pipeline.deployment import choice
    from ml_pipeline.registry import packages as registry

    sagemaker = client("sagemaker")
    known = registry.packages(sagemaker, chosen["dataset_name"])
    replaced = choice.newer(known, chosen["model_package_arn"])
    for package in replaced:
        registry.reject(sagemaker, package.arn, f"version {chosen['version']} was deployed instead")
    return {"rejected": [choice.version_of(package) for package in replaced]}


@task
def stage(photos: str, params: Params | None = None) -> Staged:
    """Copy the photos to S3 unless they are there."""
    from ml_pipeline.dag import params as form
    from ml_pipeline.dataset import batch

    form.check_names("batch_predict", params or {})
    return batch.stage(client("s3"), Settings.load(), photos or "")


@task(inlets=[assets.MODELS], outlets=[assets.PREDICTIONS])
def table(prediction: Transformed) -> Tabled:
    """Gather the answers into one table."""
    from ml_pipeline.dataset import batch

    table_uri = Settings.load().s3(f"batch/{prediction['transform_job_name']}/predictions.csv")
    tabled = batch.table(client("s3"), prediction["output_uri"], prediction.get("photos_uri"), table_uri)
    log.info("%(photos)d photos predicted, %(unreadable)d without a prediction: %(table_uri)s", tabled)
    return tabled


@task(outlets=[assets.LEFTOVERS])
def sweep(days: float, instance_hours: float, dry_run: bool, params: Params | None = None) -> Swept:
    """Look for orphans by tag and age; a dry run by default."""
    from ml_pipeline.dag import params as form
    from ml_pipeline.deployment import orphans

    form.check_names("janitor", params or {})
    account = orphans.account(*(client(name) for name in ("sagemaker", "ec2", "cloudwatch")))
    swept = orphans.sweep(account, days, instance_hours, dry_run)
    for orphan in swept["found"]:
        log.info("%(kind)s %(name)s, %(age_days).1f days old: %(reason)s", orphan)
    log.info("%s", "a dry run: nothing was removed" if dry_run else f"removed {swept['removed']}")
    return swept


@task(outlets=[assets.ENDPOINT])
def take_down(endpoint_name: str, params: Params | None = None) -> TakenDown:
    """Delete the endpoint, its configs, models, alarms and scaling; packages and data stay."""
    from ml_pipeline.dag import params as form
    from ml_pipeline.deployment import takedown, takeover

    form.check_names("teardown", params or {})
    sagemaker = client("sagemaker")
    name = takeover.named(sagemaker, endpoint_name)
    return takedown.take_down(sagemaker, client("cloudwatch"), client("application-autoscaling"), name)


def client(service: str) -> Client:
    """Return a boto3 client of `service` through the connection of the settings."""
    return AwsAccess(Settings.load().aws_conn_id).client(service)


def _progress(done: int, total: int, unit: str) -> None:
    log.info("progress done=%d total=%d unit=%s", done, total, unit)
