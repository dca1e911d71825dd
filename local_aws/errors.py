"""The exception that carries an AWS error, and constructors for common errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class AwsError(Exception):
    """An error to return to the client.

    Args:
        code: AWS's error code, such as `ValidationException`.
        message: its text.
        status: the HTTP status.
        fields: further members of a modelled error, such as `OriginalStatusCode` of ModelError.
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
    """Return a ValidationException, which SageMaker also uses for most unknown names."""
    return AwsError("ValidationException", message)


def unsupported(service: str, operation: str) -> AwsError:
    """Return the error for an operation that local_aws lacks: 501, which no SDK retries."""
    return AwsError(
        "UnsupportedOperation", f"{service}:{operation} is not supported by local_aws.", status=501
    )
