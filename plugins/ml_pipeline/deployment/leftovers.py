"""Find and end the paid work of runs that are over: jobs in progress and instances."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ml_pipeline.aws import instances, jobs
from ml_pipeline.aws.clients import Client
from ml_pipeline.aws.jobs import JobKind
from ml_pipeline.requests import names
from ml_pipeline.requests.types import Tags

# Tells whether a run has ended, from its DAG and run id.
Ended = Callable[[str, str], bool]

# kind: (list method, key of the summaries)
_LISTS = {
    JobKind.TUNING: ("list_hyper_parameter_tuning_jobs", "HyperParameterTuningJobSummaries"),
    JobKind.TRAINING: ("list_training_jobs", "TrainingJobSummaries"),
    JobKind.PROCESSING: ("list_processing_jobs", "ProcessingJobSummaries"),
    JobKind.TRANSFORM: ("list_transform_jobs", "TransformJobSummaries"),
}


def stop_jobs(sagemaker: Client, ended: Ended) -> list[str]:
    """Stop every SageMaker job in progress whose run has ended, and return their names.

    A dead triggerer calls no `on_kill`, and on a full disk not even the teardown of the run starts: what they left is
    found by its tags.
    """
    found = running_jobs(sagemaker, ended)
    return [name for kind, name in found if jobs.stop(sagemaker, kind, name)]


def running_jobs(sagemaker: Client, ended: Ended) -> Iterator[tuple[JobKind, str]]:
    """Yield (kind, name) of the jobs to stop, tuning jobs first: stopping one stops its trials."""
    for kind, (method, key) in _LISTS.items():
        pages = sagemaker.get_paginator(method).paginate(StatusEquals="InProgress")
        for summary in (item for page in pages for item in page[key]):
            tags = sagemaker.list_tags(ResourceArn=summary[kind.calls.arn])["Tags"]
            if is_left(tags, ended):
                yield kind, summary[kind.calls.name]


def terminate_instances(ec2: Client, ended: Ended) -> list[str]:
    """Terminate every living instance whose run has ended, and return their ids."""
    found = [machine for machine in instances.alive(ec2) if is_left(machine.get("Tags", []), ended)]
    ids = [str(machine["InstanceId"]) for machine in found]
    if ids:
        ec2.terminate_instances(InstanceIds=ids)
    return ids


def is_left(tags: Tags, ended: Ended) -> bool:
    """Return True if the tags are of this project, and of a run that has ended."""
    found = {tag["Key"]: tag["Value"] for tag in tags}
    return names.is_ours(tags) and "run_id" in found and ended(found.get("dag_id", ""), found["run_id"])
