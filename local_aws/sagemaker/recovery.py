"""Jobs that were running when local_aws ended: what becomes of them at the next start."""

from __future__ import annotations

import logging
import shutil
import time

from local_aws.context import Context
from local_aws.sagemaker import training
from local_aws.sagemaker.training_job import TrainingJob, note_retry
from local_aws.sagemaker.transitions import transition
from local_aws.store import Document, Resource

logger = logging.getLogger(__name__)

REASON = (
    "InternalServerError: local_aws ended while the job ran; its processes are gone. Start the job again."
)

_OTHERS = (
    ("processing-job", "ProcessingJobStatus", "ProcessingEndTime"),
    ("transform-job", "TransformJobStatus", "TransformEndTime"),
    ("hyper-parameter-tuning-job", "HyperParameterTuningJobStatus", "HyperParameterTuningEndTime"),
)


def recover(context: Context) -> None:
    """Fail what was running, stop what was stopping, and resume managed spot jobs from their checkpoints."""
    for leftover in context.jobs.iterdir():
        shutil.rmtree(leftover, ignore_errors=True)
    for resource in context.store.all("training-job", status="InProgress"):
        if resource.document.get("EnableManagedSpotTraining") and not resource.parent:
            _resume(context, resource, "Interrupted")
        elif not resource.parent and note_retry(context, resource.region, resource.name):
            _resume(context, resource, "Restarting")
        else:
            _end_training(context, resource, "Failed", REASON)
    for resource in context.store.all("training-job", status="Stopping"):
        _end_training(context, resource, "Stopped", "")
    for kind, status_member, end_member in _OTHERS:
        for resource in context.store.all(kind, status="InProgress"):
            _end(
                context, resource, {status_member: "Failed", "FailureReason": REASON, end_member: time.time()}
            )
        for resource in context.store.all(kind, status="Stopping"):
            _end(context, resource, {status_member: "Stopped", end_member: time.time()})


def _resume(context: Context, resource: Resource, secondary: str) -> None:
    """To a managed spot job the end of local_aws is an interruption like any other; to RetryStrategy a server
    error.
    """
    try:
        image = training.find_image(context, resource.document["AlgorithmSpecification"])
    except Exception as error:
        logger.warning("%s cannot be resumed: %s", resource.name, error)
        _end_training(context, resource, "Failed", REASON)
        return
    context.store.update(
        resource.kind,
        resource.region,
        resource.name,
        lambda document: transition(document, secondary, "local_aws ended; the job starts again"),
    )
    training.JOBS.begin(TrainingJob(context, resource, image))


def _end_training(context: Context, resource: Resource, status: str, reason: str) -> None:
    def change(document: Document) -> None:
        transition(document, status, reason or "Training job stopped", ended=True)
        document["TrainingJobStatus"] = status
        document["TrainingEndTime"] = time.time()
        if document.get("ObjectiveStatus") == "Pending":
            document["ObjectiveStatus"] = "Failed"
        if reason:
            document["FailureReason"] = reason

    context.store.update(resource.kind, resource.region, resource.name, change)
    logger.warning("%s %s was running when local_aws ended: %s", resource.kind, resource.name, status)


def _end(context: Context, resource: Resource, members: Document) -> None:
    context.store.update(
        resource.kind, resource.region, resource.name, lambda document: document.update(members)
    )
    logger.warning("%s %s was running when local_aws ended", resource.kind, resource.name)
