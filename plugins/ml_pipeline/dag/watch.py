"""The bodies of the tasks of `watch` and `retraining_proposal`."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ml_pipeline.aws.clients import AwsAccess, Client
from ml_pipeline.requests.types import Document, Params
from ml_pipeline.settings import Settings
from ml_pipeline.watching.looks import Begun, Concluded, Looked

if TYPE_CHECKING:
    from ml_pipeline.costs.prices import Prices
    from ml_pipeline.watching.decisions import Policy

log = logging.getLogger(__name__)


def begin(endpoint_name: str, policy: Params) -> list[Begun]:
    """Begin a look at every endpoint of the project; says of each that cannot be watched why not."""
    from ml_pipeline.costs.prices import Prices
    from ml_pipeline.dag import params
    from ml_pipeline.watching import endpoints, looks, state

    params.check_names("watch", policy)
    settings = Settings.load()
    s3, sagemaker = _client(settings, "s3"), _client(settings, "sagemaker")
    begun = []
    found_endpoints = list(endpoints.watched(sagemaker, endpoint_name))
    if endpoint_name and not found_endpoints:
        log.warning("there is no endpoint %s, or it was deleted: nothing to watch", endpoint_name)
    for endpoint in found_endpoints:
        if trouble := endpoint.trouble:
            log.warning("endpoint %s is not watched: %s", endpoint.name, trouble)
            continue
        found = looks.begin(s3, settings.bucket, endpoint, _policy(policy))
        if found:
            log.info("endpoint %(endpoint_name)s: look %(number)d at %(files)d capture files", found)
            begun.append(found)
            continue
        log.info("endpoint %s: nothing captured since the last look", endpoint.name)
        remembered, _ = state.load(s3, settings.bucket, endpoint.name)
        rate = _hourly(Prices.load(settings), endpoint.instance_type)
        if line := looks.idle(remembered, endpoint, rate, datetime.now(UTC)):
            log.warning("%s", line)
    return begun


def conclude(taken: Looked, policy: Params) -> Concluded:
    """Enter a look into the endpoint's memory, write its metrics, fill the review queue."""
    from ml_pipeline.aws import s3 as objects
    from ml_pipeline.watching import looks, reviews, timeline

    settings = Settings.load()
    s3, cloudwatch = _client(settings, "s3"), _client(settings, "cloudwatch")
    begun, look_uri = taken["begun"], taken["look_uri"]
    document = objects.read_json(s3, f"{look_uri}look.json")
    queue = objects.read_json(s3, f"{look_uri}queue.json")
    concluded = looks.conclude(s3, settings.bucket, begun, look_uri, document, _policy(policy))
    added = reviews.enqueue(
        s3, settings.bucket, begun["dataset_name"], look_uri, queue, begun["endpoint_name"]
    )
    cloudwatch.put_metric_alarm(**looks.alarm(begun["endpoint_name"]))
    cloudwatch.put_metric_data(Namespace=looks.NAMESPACE, MetricData=looks.metrics(concluded, document))
    page = timeline.publish(s3, settings.bucket, begun["endpoint_name"])
    log.info("%(endpoint_name)s, look %(number)d: %(verdict)s: %(reason)s", concluded)
    log.info("page %s, time line %s, %d photos queued for a review", concluded["page_uri"], page, added)
    return {**concluded, "queued": added}


def message(concluded: Concluded) -> tuple[str, str] | None:
    """Return event and reason of the message about a look; None where there is nothing to tell."""
    from ml_pipeline.watching.decisions import Verdict

    if concluded["verdict"] not in (Verdict.ALARM, Verdict.PROPOSAL):
        return None
    event = f"{concluded['verdict']} at {concluded['endpoint_name']}"
    return event, f"{concluded['reason']}\npage: {concluded['page_uri']}"


def proposals(concluded: list[Concluded], data: str, retrain: str, conf: Params) -> list[Document]:
    """Runs of `retraining_proposal` to start: one per look that is a proposal, whose id is the look's."""
    return [
        {
            "trigger_run_id": f"proposal-{look['endpoint_name']}-{look['number']}",
            "conf": {
                "endpoint_name": look["endpoint_name"],
                "dataset_name": look["dataset_name"],
                "look": look["number"],
                "reason": look["reason"],
                "page_uri": look["page_uri"],
                "data": data,
                "retrain": retrain,
                "conf": dict(conf),
            },
        }
        for look in concluded
        if look["verdict"] == "proposal"
    ]


def _policy(params: Params) -> Policy:
    from datetime import timedelta

    from ml_pipeline.watching.decisions import Policy

    return Policy(
        alarms_a_year=float(params["alarms_a_year"]),
        proposals_a_year=float(params["proposals_a_year"]),
        least_photos=int(params["least_photos"]),
        cooldown=timedelta(days=float(params["cooldown_days"])),
    )


def _hourly(prices: Prices, instance_type: str | None) -> float | None:
    from ml_pipeline.costs.prices import PriceError

    if instance_type is None:
        return None
    try:
        return float(prices.hourly(instance_type))
    except PriceError:
        return None


def _client(settings: Settings, service: str) -> Client:
    return AwsAccess(settings.aws_conn_id).client(service)
