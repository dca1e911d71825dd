"""Find and stop the jobs of a run that are still running when the run is over."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from ml_pipeline.aws import jobs
from ml_pipeline.aws.clients import Client
from ml_pipeline.aws.jobs import JobKind
from ml_pipeline.requests import names

# kind: (list method, key of the summaries)
_LISTS = {
    JobKind.TUNING: ("list_hyper_parameter_tuning_jobs", "HyperParameterTuningJobSummaries"),
    JobKind.TRAINING: ("list_training_jobs", "TrainingJobSummaries"),
    JobKind.PROCESSING: ("list_processing_jobs", "ProcessingJobSummaries"),
    JobKind.TRANSFORM: ("list_transform_jobs", "TransformJobSummaries"),
}


def stop_jobs(client: Client, dag_id: str, run_id: str, since: datetime) -> list[str]:
    """Stop every SageMaker job in progress that carries the run's tags, and return their names.

    A dead triggerer calls no `on_kill`, so the jobs that it watched are found here by tag.

    Args:
        client: boto3 client of SageMaker.
        dag_id: DAG of the run.
        run_id: The run that has ended.
        since: Start of the run: older jobs cannot be its own.
    """
    stopped = []
    for kind, name in running_jobs(client, dag_id, run_id, since):
        if jobs.stop(client, kind, name):
            stopped.append(name)
    return stopped


def running_jobs(client: Client, dag_id: str, run_id: str, since: datetime) -> Iterator[tuple[JobKind, str]]:
    """Yield (kind, name) of the run's jobs in progress, tuning jobs first: stopping one stops its trials."""
    for kind, (method, key) in _LISTS.items():
        pages = client.get_paginator(method).paginate(StatusEquals="InProgress", CreationTimeAfter=since)
        for summary in (item for page in pages for item in page[key]):
            if belongs(client, summary[kind.calls.arn], dag_id, run_id):
                yield kind, summary[kind.calls.name]


def belongs(client: Client, arn: str, dag_id: str, run_id: str) -> bool:
    """Return True if the tags of `arn` name this run."""
    found = {tag["Key"]: tag["Value"] for tag in client.list_tags(ResourceArn=arn)["Tags"]}
    return all(found.get(tag["Key"]) == tag["Value"] for tag in names.tags(names.Origin(dag_id, run_id, "")))
