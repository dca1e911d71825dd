"""The errors of the model of AWS."""

from __future__ import annotations

from datetime import UTC, datetime

from botocore.exceptions import ClientError

START = datetime(2026, 11, 22, tzinfo=UTC)
MISSING = ("ValidationException", "Could not find it: it does not exist")
FAULTS = (
    ("ThrottlingException", "Rate exceeded"),
    ("ExpiredTokenException", "The security token included in the request is expired"),
    ("RequestTimeTooSkewed", "The difference between the request time and the current time is too large."),
    ("InternalFailure", "We encountered an internal error."),
)


def refuse(code: str, message: str, status: int = 400) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Any"
    )
