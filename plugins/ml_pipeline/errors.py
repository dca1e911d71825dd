"""What can go wrong with paid work, told apart by the one thing that matters: is another try worth its
money?
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import RetryDecision, RetryPolicy
from airflow.sdk.exceptions import AirflowException, AirflowRuntimeError, ErrorType

# Codes of botocore's ClientError that go away by themselves.
TRANSIENT_CODES = frozenset(
    {
        "ThrottlingException",
        "Throttling",
        "TooManyRequestsException",
        "RequestLimitExceeded",
        "SlowDown",
        "InternalFailure",
        "InternalServerError",
        "InternalError",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "InsufficientInstanceCapacity",
        "InsufficientCapacity",
        "RequestTimeout",
    }
)
# HTTP statuses that botocore itself tries again (`botocore.retries.standard`): a load balancer's answer has no code.
_TRANSIENT_STATUSES = frozenset({500, 502, 503, 504})
# How SageMaker starts the FailureReason of a job that had no fault of its own.
_TRANSIENT_REASONS = ("CapacityError", "InternalServerError", "InternalError", "Unable to provision")


class JobFailed(AirflowException):
    """A paid job ended badly, by its own fault: the same input would fail again."""


class JobInterrupted(AirflowException):
    """A paid job ended for want of machines or by a fault of the service: the same input may succeed."""


class DeploymentRolledBack(AirflowException):
    """An endpoint went back to its old configuration: the new model does not serve."""


def job_error(name: str, status: str, reason: str) -> AirflowException:
    """The exception for a job that ended with `status` and SageMaker's `reason`."""
    text = f"job {name} is {status}: {reason or 'SageMaker gave no reason'}"
    return JobInterrupted(text) if may_pass(reason) else JobFailed(text)


def may_pass(reason: str) -> bool:
    """Whether a FailureReason tells of no machines or a fault of the service, and not of what was asked for."""
    return reason.startswith(_TRANSIENT_REASONS)


def is_transient(error: BaseException) -> bool:
    """Whether another try is worth it: capacity, throttling, the network, Airflow's own server. Not quota,
    validation, an algorithm's error.
    """
    from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return (
            error.response.get("Error", {}).get("Code", "") in TRANSIENT_CODES
            or status in _TRANSIENT_STATUSES
        )
    if isinstance(error, AirflowRuntimeError):
        return error.error.error in (ErrorType.API_SERVER_ERROR, ErrorType.GENERIC_ERROR)
    return isinstance(error, JobInterrupted | ConnectionError | HTTPClientError | OSError)


def will_retry(error: BaseException, ti: Any) -> bool:
    """Whether Airflow starts the task instance `ti` once more after `error`."""
    return is_transient(error) and ti.try_number <= ti.max_tries


class PaidWorkRetryPolicy(RetryPolicy):
    """Retry what `is_transient`, fail the rest at once. A retry adopts the job of the try before it."""

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: object = None
    ) -> RetryDecision:
        """Decide for Airflow; see `is_transient`."""
        if is_transient(exception):
            return RetryDecision.retry(reason=f"{type(exception).__name__} may pass")
        return RetryDecision.fail(reason=f"{type(exception).__name__} would only happen again")
