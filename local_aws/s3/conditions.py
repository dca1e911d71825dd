"""Conditional requests (RFC 9110 section 13, as S3 applies it) and byte ranges. Pure functions."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from local_aws.s3.errors import S3Error, no_such_key, precondition_failed
from local_aws.s3.objects import Version

_RANGE = re.compile(r"^bytes=([0-9]{0,18})-([0-9]{0,18})$")
_COPY_RANGE = (
    "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based "
    "offsets of the first and last bytes to copy"
)


@dataclass(frozen=True)
class Conditions:
    """The If-* headers of one request; None where absent. Dates are epoch seconds."""

    match: str | None = None
    none_match: str | None = None
    modified_since: float | None = None
    unmodified_since: float | None = None
    prefix: str = ""

    @classmethod
    def from_headers(cls, headers: Mapping[str, str], prefix: str = "") -> Conditions:
        """Read `<prefix>if-match` and so on; CopyObject's carry the prefix `x-amz-copy-source-`."""
        return cls(
            headers.get(f"{prefix}if-match"),
            headers.get(f"{prefix}if-none-match"),
            _date(headers.get(f"{prefix}if-modified-since")),
            _date(headers.get(f"{prefix}if-unmodified-since")),
            prefix,
        )

    def check_read(self, version: Version, copying: bool = False) -> None:
        """Check a GET, HEAD, or the source of a copy.

        Raises:
            S3Error: NotModified (PreconditionFailed when copying), PreconditionFailed.
        """
        if self.match is not None:
            if not _matches(self.match, version.etag):
                raise precondition_failed(f"{self.prefix}If-Match")
        elif self.unmodified_since is not None and int(version.modified) > self.unmodified_since:
            raise precondition_failed(f"{self.prefix}If-Unmodified-Since")
        if self.none_match is not None:
            unchanged, name = _matches(self.none_match, version.etag), "If-None-Match"
        else:
            # A moment in the future is no condition (RFC 9110, 13.1.3).
            since = self.modified_since
            unchanged = since is not None and int(version.modified) <= since <= time.time()
            name = "If-Modified-Since"
        if unchanged:
            raise precondition_failed(f"{self.prefix}{name}") if copying else S3Error("NotModified")

    def check_write(self, key: str, current: Version | None) -> None:
        """Check a PUT or DELETE against the state at the moment of the write.

        Raises:
            S3Error: PreconditionFailed, NoSuchKey.
        """
        if self.none_match is not None and self.match is not None:
            raise S3Error("NotImplemented", Header="If-Match,If-None-Match")
        if self.none_match is not None:
            if self.none_match.strip() != "*":
                raise S3Error("NotImplemented", Header="If-None-Match")
            if current is not None:
                raise precondition_failed("If-None-Match")
        if self.match is not None:
            if self.match.strip() == "*":
                raise S3Error("NotImplemented", Header="If-Match")
            if current is None:
                raise no_such_key(key)
            if not _matches(self.match, current.etag):
                raise precondition_failed("If-Match")


ALWAYS = Conditions()
"""No condition."""


def parse_copy_range(header: str | None, size: int) -> tuple[int, int]:
    """Parse x-amz-copy-source-range, of which S3 takes `bytes=first-last` only, to a half-open range.

    Raises:
        S3Error: InvalidArgument, or InvalidRequest for a range behind the end.
    """
    if header is None:
        return 0, size
    match = _RANGE.match(header.strip())
    first, last = match.groups() if match else ("", "")
    named = {"ArgumentName": "x-amz-copy-source-range", "ArgumentValue": header}
    if not (first and last) or int(first) > int(last):
        raise S3Error("InvalidArgument", _COPY_RANGE, **named)
    if int(first) >= size:
        raise S3Error("InvalidRequest", "The specified copy range is invalid for the source object size")
    if int(last) >= size:
        text = f"Range specified is not valid for source object of size: {size}"
        raise S3Error("InvalidArgument", text, **named)
    return int(first), int(last) + 1


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Parse `bytes=0-9` to (0, 10), half open; None: the whole object.

    A header that S3 does not understand means the whole object too. Raises InvalidRange (416) when it begins
    after the end.
    """
    match = _RANGE.match(header.strip()) if header else None
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        length = int(last)
        start, end = max(0, size - length), size
        valid = length > 0 and size > 0
    else:
        start, end = int(first), min(size, int(last) + 1 if last else size)
        if last and int(last) < start:
            return None
        valid = start < size
    if not valid:
        raise S3Error("InvalidRange", RangeRequested=header or "", ActualObjectSize=str(size))
    return start, end


def _matches(header: str, etag: str) -> bool:
    wanted = [part.strip().removeprefix("W/").strip('"') for part in header.split(",")]
    return "*" in wanted or etag in wanted


def _date(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError):
        return None
