"""The bodies of the DAGs' Python tasks: settings and clients in, one call, a small result out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ml_pipeline.aws.clients import AwsAccess
from ml_pipeline.settings import Settings

log = logging.getLogger(__name__)


def plan(params: Mapping[str, Any]) -> dict[str, Any]:
    """See `ml_pipeline.costs.plan.make`."""
    from ml_pipeline.aws import s3 as objects
    from ml_pipeline.costs import plan
    from ml_pipeline.dag import params as form

    settings = Settings.load()
    s3 = _client(settings, "s3")
    objects.ensure_bucket(settings, s3)
    defaults = {name: param.value for name, param in form.train_and_deploy().items()}
    planned = plan.make(params, defaults, settings, s3)
    for step in planned["steps"]:
        usd = "price unknown" if step["usd"] is None else f"${step['usd']:.4f}"
        log.info(
            "%(step)-9s %(instance_count)d x %(instance_type)-15s %(seconds)8.0f s  %(usd)s",
            step | {"usd": usd},
        )
    for line in planned["out_of_use"]:
        log.warning("%s", line)
    log.info("about $%.2f; %s", planned["estimate_usd"], planned["note"])
    return planned


def upload(data: str, name: str, seed: int) -> dict[str, Any]:
    """See `ml_pipeline.dataset.upload.upload`; `classes` is their number here, to keep the XCom small."""
    from ml_pipeline.aws import s3 as objects
    from ml_pipeline.dataset.upload import upload

    settings = Settings.load()
    s3 = _client(settings, "s3")
    objects.ensure_bucket(settings, s3)  # scheduled_retraining uploads without a plan before it
    result = upload(s3, settings.bucket, name, data, seed=seed, progress=_progress)
    for example in result["rejected_examples"]:
        log.warning("left out %(path)s: %(reason)s", example)
    return {**result, "classes": len(result["classes"])}


def weights(weights: str, architecture: str) -> dict[str, Any]:
    """See `ml_pipeline.dataset.weights.store_weights`."""
    from ml_pipeline.dataset.weights import store_weights

    settings = Settings.load()
    return store_weights(
        _client(settings, "s3"),
        settings.bucket,
        weights,
        architecture,
        lambda done, total: _progress(done, total, "bytes"),
    )


def smoke_test(
    dataset: Mapping[str, Any], evaluation: Mapping[str, Any], deployment: Mapping[str, Any]
) -> dict[str, Any]:
    """See `ml_pipeline.deployment.smoke_test.run`. Passed, the config before is removed; failed, it goes back into
    service.
    """
    from airflow.sdk import get_current_context

    from ml_pipeline.deployment import rollback, smoke_test
    from ml_pipeline.errors import will_retry
    from ml_pipeline.registry import packages as registry

    settings = Settings.load()
    sagemaker = _client(settings, "sagemaker")
    smoke_test.check_in_service(sagemaker, deployment)
    try:
        result = smoke_test.run(
            _client(settings, "s3"),
            _client(settings, "sagemaker-runtime"),
            dataset,
            evaluation,
            deployment["endpoint_name"],
        )
    except Exception as error:
        # Whatever ends the test for good, a throttled last try too: a model that nobody could ask must not serve.
        if not will_retry(error, get_current_context()["ti"]):
            log.warning("%s", rollback.roll_back(sagemaker, deployment, str(error)))
        raise
    registry.reinstate(sagemaker, deployment["model_package_arn"])
    if deployment.get("previous_config_name"):
        rollback.retire(sagemaker, deployment["previous_config_name"])
    return result


def report(params: Mapping[str, Any], ti: Any) -> dict[str, Any]:
    """See `ml_pipeline.costs.bill.make`; besides, the rates that jobs measured are kept and compared."""
    from ml_pipeline.costs import bill as report
    from ml_pipeline.costs import rates
    from ml_pipeline.costs.prices import Prices

    settings = Settings.load()
    prices, s3 = Prices.load(settings), _client(settings, "s3")
    steps = ("embed", "tune", "train", "ec2.train", "ec2.terminate", "evaluate")
    results = {step: ti.xcom_pull(task_ids=step) for step in steps}
    bill = report.make(_client(settings, "sagemaker"), prices, results)
    for rate in report.measured(_client(settings, "logs"), settings, bill["steps"], results, params):
        rates.record(s3, settings, rate)
    table = rates.comparison(rates.load(s3, settings), prices, params["architecture"])
    for line in [*bill["steps"], *table]:
        log.info("%s", line)
    log.info("about $%.4f; %s", bill["usd"], bill["note"])
    return {**bill, "instances": table, "formula": rates.FORMULA}


def _client(settings: Settings, service: str) -> Any:
    return AwsAccess(settings.aws_conn_id).client(service)


def _progress(done: int, total: int, unit: str) -> None:
    log.info("progress done=%d total=%d unit=%s", done, total, unit)


def decide_retraining(
    dataset: Mapping[str, Any], data: str, seed: int, force: bool, conf: Mapping[str, Any], ti: Any
) -> dict[str, Any]:
    """See `ml_pipeline.registry.retraining.decide`; returns the conf of the run to start, or skips.

    That run makes the version anew: from other photos or by another seed it would be another one, whose model is
    never that of the version looked at here, and every look would train again.
    """
    from airflow.sdk.exceptions import AirflowSkipException

    from ml_pipeline.registry import packages as registry
    from ml_pipeline.registry import retraining

    settings = Settings.load()
    champion = registry.champion(_client(settings, "sagemaker"), dataset["name"])
    decision = retraining.decide(dataset, champion, force)
    log.info("%s", decision.reason)
    ti.xcom_push(key="reason", value=decision.reason)
    if not decision.train:
        raise AirflowSkipException(decision.reason)
    return {**conf, "data": data, "seed": seed, "dataset_name": dataset["name"], "force": force}


def stage(photos: str) -> dict[str, Any]:
    """See `ml_pipeline.dataset.batch.stage`."""
    from ml_pipeline.dataset import batch

    settings = Settings.load()
    return batch.stage(_client(settings, "s3"), settings, photos)


def table(prediction: Mapping[str, Any]) -> dict[str, Any]:
    """See `ml_pipeline.dataset.batch.table`."""
    from ml_pipeline.dataset import batch

    settings = Settings.load()
    table_uri = settings.s3(f"batch/{prediction['transform_job_name']}/predictions.csv")
    return batch.table(_client(settings, "s3"), prediction["output_uri"], table_uri)


def sweep(days: float, instance_hours: float, dry_run: bool) -> dict[str, Any]:
    """See `ml_pipeline.deployment.orphans.sweep`."""
    from ml_pipeline.deployment import orphans

    settings = Settings.load()
    account = orphans.account(*(_client(settings, name) for name in ("sagemaker", "ec2", "cloudwatch")))
    swept = orphans.sweep(account, days, instance_hours, dry_run)
    for orphan in swept["found"]:
        log.info("%(kind)s %(name)s, %(age_days).1f days old: %(reason)s", orphan)
    log.info("%s", "a dry run: nothing was removed" if dry_run else f"removed {swept['removed']}")
    return swept


def take_down(endpoint_name: str) -> dict[str, Any]:
    """See `ml_pipeline.deployment.takedown.take_down`."""
    from ml_pipeline.deployment import takedown

    settings = Settings.load()
    return takedown.take_down(
        _client(settings, "sagemaker"),
        _client(settings, "cloudwatch"),
        _client(settings, "application-autoscaling"),
        endpoint_name,
    )
