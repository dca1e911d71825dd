"""The four kinds of SageMaker job, and the rule by which a task starts exactly one of them.

Before it creates anything, a task looks for the job of its own name. It adopts a running job, reuses a completed one
and waits out one that is being stopped. The number at the end of the name rises only after a job that failed or was
stopped, or whose results are gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum

from ml_pipeline.aws.clients import Client
from ml_pipeline.requests import names
from ml_pipeline.requests.types import Document

_TAKEN_TRIES = 10
_TAKEN_PAUSE_SECONDS = 2.0


class JobKind(StrEnum):
    """A kind of SageMaker job; its value is stored in XComs and triggers."""

    TRAINING = "training"
    TUNING = "tuning"
    PROCESSING = "processing"
    TRANSFORM = "transform"

    @property
    def calls(self) -> Calls:
        """The API of this kind."""
        return _CALLS[self]


@dataclass(frozen=True)
class Calls:
    """The API of one kind of job.

    Attributes:
        create, describe, stop: Method names of the boto3 client.
        name, status, arn: Keys of requests and responses.
        log_group: CloudWatch log group, whose streams start with `<job name>/`; None without a log of its own.
        name_limit: Longest name in characters.
        console: Path in the SageMaker console in front of the job's name.
    """

    create: str
    describe: str
    stop: str
    name: str
    status: str
    arn: str
    log_group: str | None
    console: str
    name_limit: int = names.LIMIT


_CALLS = {
    JobKind.TRAINING: Calls(
        "create_training_job",
        "describe_training_job",
        "stop_training_job",
        "TrainingJobName",
        "TrainingJobStatus",
        "TrainingJobArn",
        "/aws/sagemaker/TrainingJobs",
        "jobs",
    ),
    JobKind.TUNING: Calls(
        "create_hyper_parameter_tuning_job",
        "describe_hyper_parameter_tuning_job",
        "stop_hyper_parameter_tuning_job",
        "HyperParameterTuningJobName",
        "HyperParameterTuningJobStatus",
        "HyperParameterTuningJobArn",
        None,
        "hyper-tuning-jobs",
        names.TUNING_LIMIT,
    ),
    JobKind.PROCESSING: Calls(
        "create_processing_job",
        "describe_processing_job",
        "stop_processing_job",
        "ProcessingJobName",
        "ProcessingJobStatus",
        "ProcessingJobArn",
        "/aws/sagemaker/ProcessingJobs",
        "processing-jobs",
    ),
    JobKind.TRANSFORM: Calls(
        "create_transform_job",
        "describe_transform_job",
        "stop_transform_job",
        "TransformJobName",
        "TransformJobStatus",
        "TransformJobArn",
        "/aws/sagemaker/TransformJobs",
        "transform-jobs",
    ),
}


class Phase(Enum):
    """The meaning of a job's status to a task that waits for it."""

    RUNNING = "running"
    STOPPING = "stopping"
    COMPLETED = "completed"
    DEAD = "dead"


def phase(status: str) -> Phase:
    """Return the phase of a *JobStatus.

    Raises:
        ValueError: No SageMaker job has this status.
    """
    try:
        return _PHASES[status]
    except KeyError:
        raise ValueError(f"unknown job status {status!r}") from None


_PHASES = {
    "Pending": Phase.RUNNING,
    "InProgress": Phase.RUNNING,
    "Stopping": Phase.STOPPING,
    "Completed": Phase.COMPLETED,
    "Failed": Phase.DEAD,
    "Stopped": Phase.DEAD,
    "Deleting": Phase.STOPPING,
    "DeleteFailed": Phase.DEAD,
}


@dataclass(frozen=True)
class Started:
    """The one job of a task: its name, its status now, and whether this call created it."""

    name: str
    status: str
    created: bool

    @property
    def phase(self) -> Phase:
        """Phase of the job's status."""
        return phase(self.status)


def create_or_adopt(
    client: Client,
    kind: JobKind,
    name_of: Callable[[int], str],
    request_of: Callable[[str], Document],
    before_create: Callable[[str], None] | None = None,
    is_usable: Callable[[str], bool] | None = None,
) -> Started:
    """Find the task's job or create it.

    Args:
        client: boto3 SageMaker client.
        kind: The kind of job, with its API calls.
        name_of: The name of the n-th attempt, from 1.
        request_of: The Create request for a name.
        before_create: Called with the name just before Create, to write what the job will read.
        is_usable: Called with the name of a completed job; False (results gone or incomplete) skips it.

    Returns:
        The job. In Phase.STOPPING, wait until it has ended, then call again.

    Raises:
        botocore.exceptions.ClientError: Create failed for another reason than that the name is taken.
    """
    attempt, taken = 1, 0
    while True:
        name = name_of(attempt)
        status = status_of(client, kind, name)
        if status is None:
            if before_create:
                before_create(name)
            if _create(client, kind, request_of(name)):
                return Started(name, "InProgress", created=True)
            # A concurrent attempt with the same name (hence the same request), or an earlier call whose answer was
            # lost, created the job: adopt it. Describe may lag behind.
            taken += 1
            if taken > _TAKEN_TRIES:
                raise RuntimeError(f"the name {name} is taken, but Describe finds no such job")
            time.sleep(_TAKEN_PAUSE_SECONDS)
            continue
        of_use = not is_usable or phase(status) is not Phase.COMPLETED or is_usable(name)
        if phase(status) is not Phase.DEAD and of_use:
            return Started(name, status, created=False)
        attempt += 1


def status_of(client: Client, kind: JobKind, name: str) -> str | None:
    """Return the status of a job, or None if there is none of that name."""
    description = describe(client, kind, name)
    return None if description is None else description[kind.calls.status]


def describe(client: Client, kind: JobKind, name: str) -> Document | None:
    """Return the Describe response, or None if there is no such job."""
    from botocore.exceptions import ClientError

    try:
        response: Document = getattr(client, kind.calls.describe)(**{kind.calls.name: name})
    except ClientError as error:
        if is_missing(error):
            return None
        raise
    return response


def reason(description: Document) -> str:
    """Explain from its Describe response why a job ended: SageMaker's words and what to do, "" if it gives none.

    A training job that reached its own limit has no FailureReason, only a SecondaryStatus.
    """
    said = description.get("FailureReason") or description.get("ExitMessage")
    found = str(said or description.get("SecondaryStatus") or "")
    if not said and found == description.get("TrainingJobStatus"):
        return ""
    advice = next((advice for cause, advice in _ADVICE.items() if found.startswith(cause)), None)
    return f"{found}; {advice}" if advice else found


_ADVICE = {
    "MaxRuntimeExceeded": (
        "it ran longer than it may: raise max_job_hours, or give it faster or more machines"
    ),
    "MaxWaitTimeExceeded": (
        "spot machines were away for too long: turn spot off, or raise max_job_hours (it may wait twice that)"
    ),
}


def stop(client: Client, kind: JobKind, name: str) -> bool:
    """Ask SageMaker to stop a job. Return False if it had ended or never existed: nothing is running either way."""
    from botocore.exceptions import ClientError

    try:
        getattr(client, kind.calls.stop)(**{kind.calls.name: name})
    except ClientError as error:
        if is_over_already(error):
            return False
        raise
    return True


def is_over_already(error: Exception) -> bool:
    """Return True if a Stop error says that the job has ended or does not exist."""
    # "The request was rejected because the training job is in status Completed."
    code = getattr(error, "response", {}).get("Error", {}).get("Code", "")
    return code == "ValidationException" or is_missing(error)


def is_missing(error: Exception) -> bool:
    """Return True if a Describe or Stop error says that the thing does not exist.

    Training and transform answer ValidationException "Requested resource not found", others ResourceNotFound. A plain
    ValidationException about the request itself does not count, although the stock operators take any for absence.
    """
    details = getattr(error, "response", {}).get("Error", {})
    code, message = details.get("Code", ""), details.get("Message", "").lower()
    if code in ("ResourceNotFound", "ResourceNotFoundException"):
        return True
    return code == "ValidationException" and any(
        phrase in message for phrase in ("not found", "could not find", "does not exist", "couldn't find")
    )


def ensure(describe: Callable[[], object], create: Callable[[], object]) -> None:
    """Create what `describe` does not find.

    Create answers that it exists if another run, or an earlier call whose answer was lost, made it: no error then.
    """
    from botocore.exceptions import ClientError

    try:
        describe()
    except ClientError as error:
        if not is_missing(error):
            raise
        try:
            create()
        except ClientError:
            try:
                describe()
            except ClientError:
                pass
            else:
                return
            raise


def _create(client: Client, kind: JobKind, request: Document) -> bool:
    from botocore.exceptions import ClientError

    try:
        getattr(client, kind.calls.create)(**request)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("ResourceInUse", "ResourceInUseException"):
            return False
        raise
    return True
