"""`POST /_local_aws/interrupt/<job>`: reclaim a managed spot job's instances, as AWS may at any time."""

from __future__ import annotations

from typing import Any

from local_aws.context import Context
from local_aws.errors import AwsError
from local_aws.sagemaker.jobs.job import Jobs
from local_aws.sagemaker.training.job import TrainingJob


def interrupt(context: Context, method: str, name: str) -> dict[str, Any]:
    """Interrupt the running job of that name, in any region.

    Raises:
        AwsError: No such job runs, or it cannot be interrupted.
    """
    if method != "POST":
        raise AwsError("MethodNotAllowed", "Interrupt with POST.", status=405)
    jobs = [job for job in context.part(Jobs).running() if isinstance(job, TrainingJob) and job.name == name]
    if not jobs:
        raise AwsError("NotFound", f"No training job {name} runs.", status=404)
    if not all(job.interrupt() for job in jobs):
        raise AwsError(
            "Conflict",
            f"{name} cannot be interrupted: it needs EnableManagedSpotTraining and secondary status Training.",
            status=409,
        )
    return {"interrupted": True, "message": f"{name} was interrupted; it starts again from its checkpoints"}
