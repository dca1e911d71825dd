"""Errors of paid work, told apart by whether another try is worth its money."""

from __future__ import annotations

import builtins
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar, Protocol

from airflow.sdk.exceptions import AirflowException, AirflowRuntimeError, ErrorType

try:
    from airflow.sdk import RetryDecision, RetryPolicy
except ImportError:  # Airflow 3.2 asks no policy: `ml_pipeline.dag.retries` does
    RetryPolicy = object  # type: ignore[assignment, misc]

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

HAS_POLICIES = RetryPolicy is not object

# Codes of botocore's ClientError that pass by themselves.
TRANSIENT_CODES = frozenset(
    {
        "ThrottlingException",
        "Throttling",
        "ThrottledException",
        "RequestThrottled",
        "RequestThrottledException",
        "TooManyRequestsException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "BandwidthLimitExceeded",
        "SlowDown",
        "InternalFailure",
        "InternalServerError",
        "InternalError",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "Unavailable",
        "InsufficientInstanceCapacity",
        "InsufficientCapacity",
        "RequestTimeout",
        "RequestTimeoutException",
    }
)
# Codes of credentials that ran out, and of clocks that differ: a new client, or a corrected clock, mends them.
_EXPIRED_CODES = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "RequestExpired",
        "TokenRefreshRequired",
        "RequestTimeTooSkewed",
    }
)
# "Signature expired: ... is now earlier than ...", "Signature not yet current: ..."
_SKEW_CODES = frozenset({"InvalidSignatureException", "SignatureDoesNotMatch"})
_SKEW_WORDS = ("signature expired", "not yet current")
# Codes of credentials that were replaced or lost a right: a wait for work under way outlives them, a new task does not.
_REFUSED_CODES = frozenset(
    {
        *_SKEW_CODES,
        "AccessDenied",
        "AccessDeniedException",
        "AuthFailure",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "UnauthorizedOperation",
        "UnrecognizedClientException",
    }
)
# HTTP statuses that botocore itself tries again (`botocore.retries.standard`): a load balancer's answer has no code.
_TRANSIENT_STATUSES = frozenset({429, 500, 502, 503, 504})
# S3's answer to expired credentials; that to a HEAD request has no body, so no code tells it from others.
_BAD_REQUEST = 400
# How SageMaker starts the FailureReason of a job that was not at fault.
_TRANSIENT_REASONS = ("CapacityError", "InternalServerError", "InternalError", "Unable to provision")
# Retries of a task while AWS or Airflow's own server does not answer: pauses double from 10 s to 10 minutes, half an
# hour in all.
RETRIES = 8
LONGEST_PAUSE = timedelta(minutes=10)
# Retries of paid work that ended for want of machines, each of which is paid, and of a full disk.
_COSTLY_RETRIES = 2
# A path that is wrong stays wrong.
_LASTING = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)


class JobFailed(AirflowException):
    """A paid job failed by its own fault: the same input would fail again."""


class JobInterrupted(AirflowException):
    """A paid job ended for want of machines or by a fault of the service: the same input may succeed."""


class DeploymentRolledBack(AirflowException):
    """An endpoint went back to its old configuration: the new model does not serve."""


class WaitFailed(AirflowException):
    """A wait for paid work ended without its result: AWS did not answer, or refused."""


def job_error(name: str, status: str, reason: str) -> AirflowException:
    """Return the exception for a job that ended with `status` and SageMaker's `reason`."""
    text = f"job {name} is {status}: {reason or 'SageMaker gave no reason'}"
    return JobInterrupted(text) if may_pass(reason) else JobFailed(text)


def may_pass(reason: str) -> bool:
    """Return True if a FailureReason blames the capacity or the service, not the request."""
    return reason.startswith(_TRANSIENT_REASONS)


def one_line(error: BaseException) -> str:
    """Return an error as one line that begins with its type."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def code_of(error: BaseException) -> str:
    """Return AWS's code of an error; "" where it has none."""
    # boto3's uploads raise an error of their own while they handle that of S3.
    answer = getattr(error, "response", None) or getattr(error.__context__, "response", {})
    return str(answer.get("Error", {}).get("Code", ""))


def is_transient(error: BaseException) -> bool:
    """Return True if another try is worth it.

    True for capacity, throttling, the network, expired credentials, clock skew and Airflow's own server; False for
    quotas, validation, missing rights and errors of an algorithm.
    """
    from boto3.exceptions import RetriesExceededError, S3UploadFailedError
    from botocore.exceptions import (
        ClientError,
        ConnectionError,
        CredentialRetrievalError,
        HTTPClientError,
        IncompleteReadError,
    )

    if isinstance(error, S3UploadFailedError):
        # boto3 raises it while it handles S3's own answer.
        return error.__context__ is not None and is_transient(error.__context__)
    if isinstance(error, ClientError):
        return _passes(error)
    if isinstance(error, AirflowRuntimeError):
        return error.error.error in (ErrorType.API_SERVER_ERROR, ErrorType.GENERIC_ERROR)
    if isinstance(error, OSError):
        return not isinstance(error, _LASTING)
    return isinstance(
        error,
        JobInterrupted
        | ConnectionError
        | HTTPClientError
        | IncompleteReadError
        | CredentialRetrievalError
        | RetriesExceededError,
    )


def is_survivable(error: BaseException) -> bool:
    """Return True if a wait for work in progress continues after `error`.

    Beyond what `is_transient` lets pass: credentials that were replaced, removed or lost a right. The work runs on
    meanwhile, and a person may restore them.
    """
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    if is_transient(error):
        return True
    if isinstance(error, ClientError):
        return code_of(error) in _REFUSED_CODES
    # Tokens of SSO and of web identities have exceptions of their own.
    return isinstance(error, NoCredentialsError) or (
        isinstance(error, BotoCoreError) and any(word in type(error).__name__ for word in ("Token", "SSO"))
    )


class Tries(Protocol):
    """The counters of a task instance's tries."""

    @property
    def try_number(self) -> int:
        """Number of this try, from 1."""

    @property
    def max_tries(self) -> int:
        """Tries after the first one."""


def will_retry(error: BaseException, ti: Tries) -> bool:
    """Return True if Airflow starts the task instance `ti` once more after `error`."""
    return is_transient(error) and _retries_left(error, ti.try_number, ti.max_tries) > 0


class PaidWorkRetryPolicy(RetryPolicy):
    """Retry what `is_transient`, fail the rest at once. A retry adopts the job of the try before it."""

    # Pay for few tries only.
    sparing: ClassVar[bool] = True

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: object = None
    ) -> RetryDecision:
        """Decide for Airflow."""
        kind = type(exception).__name__
        pause = self.pause(exception, try_number, max_tries)
        if pause is not None:
            return RetryDecision.retry(pause, reason=f"{kind} may pass")
        lasts = "did not pass in time" if is_transient(exception) else "would only happen again"
        return RetryDecision.fail(reason=f"{kind} {lasts}")

    def pause(self, exception: BaseException, try_number: int, max_tries: int) -> timedelta | None:
        """Return how long to wait for the next try; None: no further try is of use."""
        if not is_transient(exception):
            return None
        left = _retries_left(exception, try_number, max_tries) if self.sparing else max_tries + 1 - try_number
        if left <= 0:
            return None
        return timedelta(
            seconds=min(10 * 2 ** (_round(try_number, max_tries) - 1), LONGEST_PAUSE.total_seconds())
        )


class FreeRetryPolicy(PaidWorkRetryPolicy):
    """Retry for half an hour whatever may pass, a full disk too: a try of this task costs nothing."""

    sparing = False


def _retries_left(error: BaseException, try_number: int, max_tries: int) -> int:
    left = max_tries + 1 - try_number
    costly = isinstance(error, JobInterrupted) or (
        isinstance(error, OSError) and not isinstance(error, builtins.ConnectionError | TimeoutError)
    )
    return min(left, _COSTLY_RETRIES + 1 - _round(try_number, max_tries)) if costly else left


def _round(try_number: int, max_tries: int) -> int:
    """Return the number of this try, from 1, since the task was last cleared: a clear raises max_tries."""
    return try_number - max(0, max_tries - RETRIES)


def _passes(error: ClientError) -> bool:
    code, message = code_of(error), error.response.get("Error", {}).get("Message", "").lower()
    if code in _SKEW_CODES:
        return any(words in message for words in _SKEW_WORDS)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if status == _BAD_REQUEST and error.operation_name.startswith("Head"):
        return True
    return code in TRANSIENT_CODES or code in _EXPIRED_CODES or status in _TRANSIENT_STATUSES
