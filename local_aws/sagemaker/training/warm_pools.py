"""Warm pools: instances kept after a training job for the next matching one.

Nothing keeps running here, so a reused pool starts no faster; status and billing are as on AWS: Available after the
job, Reused by the next matching job, Terminated after KeepAlivePeriodInSeconds.
"""

from __future__ import annotations

import math
import time

from local_aws.context import Context
from local_aws.state.resources import Document, Missing, Resource

KIND = "training-job"
_MATCHED = ("RoleArn", "VpcConfig", "EnableNetworkIsolation", "EnableInterContainerTrafficEncryption")


def keep_alive(document: Document) -> int:
    """Return the seconds for which a job's instances are kept; 0 for none."""
    return int(document["ResourceConfig"].get("KeepAlivePeriodInSeconds", 0))


def matches(pool: Document, job: Document) -> bool:
    """Return True when a job can run on a pool: same instances, image, role and network.

    Source: SageMaker's documentation, "Matching training jobs".
    """
    ours, theirs = pool["ResourceConfig"], job["ResourceConfig"]
    same_instances = all(
        ours.get(member) == theirs.get(member)
        for member in ("InstanceType", "InstanceCount", "InstanceGroups", "VolumeSizeInGB", "VolumeKmsKeyId")
    )
    image = "TrainingImage"
    same_image = pool["AlgorithmSpecification"].get(image) == job["AlgorithmSpecification"].get(image)
    return same_instances and same_image and all(pool.get(member) == job.get(member) for member in _MATCHED)


def begin(context: Context, region: str, job: Document) -> None:
    """Start a job: take the oldest matching pool and mark the job's own as InUse.

    Edits `job`, which is new.
    """
    if not keep_alive(job):
        return
    job["WarmPoolStatus"] = {"Status": "InUse"}
    name = job["TrainingJobName"]
    for pool in _available(context, region):
        if not is_over(pool.document) and matches(pool.document, job):
            context.store.update(KIND, region, pool.name, lambda document: _leave(document, "Reused", name))
            return


def end(document: Document) -> None:
    """End a job: its pool becomes Available. Edits its document."""
    if keep_alive(document):
        document["WarmPoolStatus"] = {"Status": "Available", "ResourceRetainedBillableTimeInSeconds": 0}


def is_over(document: Document) -> bool:
    """Return True when an available pool has expired."""
    return time.time() >= document["TrainingEndTime"] + keep_alive(document)


def expire(context: Context, region: str) -> None:
    """Terminate expired pools. Called before their status is read."""
    for pool in _available(context, region):
        if is_over(pool.document):
            try:
                context.store.update(
                    KIND, region, pool.name, lambda document: _leave(document, "Terminated", None)
                )
            except Missing:
                continue


def current(document: Document) -> Document:
    """Return a pool's status for a description; an available one is billed until now."""
    status: Document = dict(document["WarmPoolStatus"])
    if status["Status"] == "Available":
        status["ResourceRetainedBillableTimeInSeconds"] = _retained(document)
    return status


def _available(context: Context, region: str) -> list[Resource]:
    return [
        job
        for job in context.store.all(KIND, region)
        if job.document.get("WarmPoolStatus", {}).get("Status") == "Available"
    ]


def _retained(document: Document) -> int:
    seconds = min(time.time() - document["TrainingEndTime"], keep_alive(document))
    return max(0, math.ceil(seconds))


def _leave(document: Document, status: str, reused_by: str | None) -> None:
    if document["WarmPoolStatus"]["Status"] != "Available":
        return
    left = {"Status": status, "ResourceRetainedBillableTimeInSeconds": _retained(document)}
    if reused_by:
        left["ReusedByJob"] = reused_by
    document["WarmPoolStatus"] = left
