"""AWS's errors: one exception, and its form in each of AWS's wire protocols."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class AwsError(Exception):
    """An error that the client is to see.

    `code` is AWS's error code (`ValidationException`), `message` its text, `status` the HTTP status, and
    `fields` are further members of a modelled error (`OriginalStatusCode` of sagemaker-runtime's ModelError).
    """

    def __init__(
        self, code: str, message: str, status: int = 400, fields: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.fields = dict(fields or {})


def validation_error(message: str) -> AwsError:
    """ValidationException, which SageMaker also uses for most unknown names."""
    return AwsError("ValidationException", message)


def unsupported(service: str, operation: str) -> AwsError:
    """An operation that AWS has and local_aws does not: 501, which no SDK retries."""
    return AwsError(
        "UnsupportedOperation", f"{service}:{operation} is not supported by local_aws.", status=501
    )
