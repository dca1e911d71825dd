"""Recovery at start of the jobs that were running when local_aws ended."""

from __future__ import annotations

import logging

from local_aws.context import Context
from local_aws.errors import AwsError
from local_aws.sagemaker.jobs.job import INTERNAL_ERROR, Jobs, ending
from local_aws.sagemaker.training import operations as training
from local_aws.sagemaker.training.job import TrainingJob, note_end, note_retry
from local_aws.sagemaker.training.transitions import transition
from local_aws.sagemaker.tuning import operations as tuning
from local_aws.sagemaker.tuning.job import KIND as TUNING_JOB
from local_aws.sagemaker.tuning.job import TuningJob
from local_aws.state.beneath import remove_tree
from local_aws.state.resources import Document, Missing, Resource

logger = logging.getLogger(__name__)

REASON = f"{INTERNAL_ERROR}: local_aws ended while the job ran; its processes are gone. Start the job again."


def recover(context: Context) -> None:
    """Settle the jobs of an earlier process.

    Running jobs fail, stopping jobs are stopped, managed spot jobs resume from their checkpoints, and searches
    continue.
    """
    for leftover in context.jobs.iterdir():
        remove_tree(leftover)
    for resource in context.store.all(TrainingJob.kind, status="InProgress"):
        _recover_training(context, resource)
    for resource in context.store.all(TrainingJob.kind, status="Stopping"):
        _end_training(context, resource, "Stopped", "")
    for kind in ("processing-job", "transform-job"):
        for resource in context.store.all(kind, status="InProgress"):
            _end(context, resource, "Failed", FailureReason=REASON)
    for resource in context.store.all(TUNING_JOB, status="InProgress"):
        _continue_search(context, resource)
    for kind in ("processing-job", "transform-job", TUNING_JOB):
        for resource in context.store.all(kind, status="Stopping"):
            _end(context, resource, "Stopped")


def _recover_training(context: Context, resource: Resource) -> None:
    if resource.parent and _status_of_search(context, resource) != "InProgress":
        _end_training(context, resource, "Stopped", "")
    elif resource.document.get("EnableManagedSpotTraining"):
        _resume(context, resource, "Interrupted")
    elif note_retry(context, resource.region, resource.name):
        _resume(context, resource, "Restarting")
    else:
        _end_training(context, resource, "Failed", REASON)


def _status_of_search(context: Context, trial: Resource) -> str:
    try:
        return context.store.get(TUNING_JOB, trial.region, trial.parent).status
    except Missing:
        return ""


def _resume(context: Context, resource: Resource, secondary: str) -> None:
    """Restart a training job.

    For a managed spot job the end of local_aws is an interruption; for RetryStrategy it is a server error.
    """
    try:
        image = training.find_image(context, resource.document["AlgorithmSpecification"])
    except AwsError as error:
        logger.warning("%s cannot be resumed: %s", resource.name, error)
        _end_training(context, resource, "Failed", REASON)
        return
    context.store.update(
        resource.kind,
        resource.region,
        resource.name,
        lambda document: transition(document, secondary, "local_aws ended; the job restarts"),
    )
    context.part(Jobs).begin(TrainingJob(context, resource, image, _parallel(context, resource)))


def _parallel(context: Context, resource: Resource) -> int:
    """Return the number of trials that run at once."""
    if not resource.parent:
        return 1
    search = context.store.get(TUNING_JOB, resource.region, resource.parent).document
    limits = search["HyperParameterTuningJobConfig"]["ResourceLimits"]
    return int(limits["MaxParallelTrainingJobs"])


def _continue_search(context: Context, resource: Resource) -> None:
    """Continue a search: as on AWS it outlives its machines, and lost trials are retried."""
    known = context.store.all(TrainingJob.kind, resource.region, parent=resource.name)
    warm = tuning.parents_jobs(context, resource.region, resource.document)
    try:
        search = TuningJob(context, resource, warm, known)
    except Exception:
        logger.exception("tuning job %s cannot continue", resource.name)
        _end(context, resource, "Failed", FailureReason=REASON)
        return
    logger.info("tuning job %s continues after %d training jobs", resource.name, len(known))
    context.part(Jobs).begin(search)


def _end_training(context: Context, resource: Resource, status: str, reason: str) -> None:
    def change(document: Document) -> None:
        note_end(context, resource.region, document, status, reason or "Training job stopped")
        if reason:
            document["FailureReason"] = reason

    context.store.update(resource.kind, resource.region, resource.name, change)
    logger.warning("%s %s was running when local_aws ended: %s", resource.kind, resource.name, status)


def _end(context: Context, resource: Resource, status: str, **members: str) -> None:
    ended = ending(resource.kind, status, **members)
    context.store.update(
        resource.kind, resource.region, resource.name, lambda document: document.update(ended)
    )
    logger.warning("%s %s was running when local_aws ended", resource.kind, resource.name)
