"""Corrections of labels: an append-only log per data set in S3, by the photos' SHA-256.

The log is a folder of numbered objects, each with one or more lines of JSON. Each is written once, with If-None-Match,
so of two writers of the same number one takes the next. The newest entry of a photo counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from ml_pipeline.aws import s3 as objects
from ml_pipeline.aws.clients import Client

if TYPE_CHECKING:
    from model_code.data.versions.corrections import Decision

SCHEMA_VERSION = 1
_LOST_RACE = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})
_READERS = 16


class CorrectionError(ValueError):
    """A correction that cannot be applied, or a damaged log."""


class Action(StrEnum):
    """The decisions about a photo."""

    LABEL = "label"  # it belongs to another class
    REJECT = "reject"  # it does not belong into the data set
    KEEP = "keep"  # it is right as it is in the source; takes back earlier corrections


@dataclass(frozen=True)
class Correction:
    """One decision about one photo.

    Attributes:
        sha256: The photo's SHA-256.
        action: The decision.
        label: The right class, for `Action.LABEL`.
        who: Who decided.
        when: ISO 8601, UTC.
        why: In the words of who decided.
    """

    sha256: str
    action: Action
    label: str | None
    who: str
    when: str
    why: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise CorrectionError(f"{self.sha256!r} is not a SHA-256: give 64 hex digits")
        if (self.action is Action.LABEL) != bool(self.label):
            raise CorrectionError(
                f"{self.action}: a label belongs to the action label, and to no other; got {self.label!r}"
            )
        if not self.who.strip():
            raise CorrectionError("say who made the correction")


@dataclass(frozen=True)
class Log:
    """All corrections of a data set, oldest first."""

    entries: tuple[Correction, ...]

    def newest(self) -> dict[str, Correction]:
        """Return the correction that counts, by SHA-256."""
        return {entry.sha256: entry for entry in self.entries}

    def decisions(self) -> dict[str, Decision]:
        """Return what the corrections that count say, by SHA-256."""
        from model_code.data.versions.corrections import Decision

        def decision(entry: Correction) -> Decision:
            if entry.action is not Action.REJECT:
                return Decision(entry.label)
            return Decision(None, f"rejected by {entry.who}" + (f": {entry.why}" if entry.why else ""))

        return {sha256: decision(entry) for sha256, entry in self.newest().items()}


def to_line(entry: Correction) -> str:
    """Return a correction as one line of JSON."""
    return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(entry)}, ensure_ascii=False)


def now() -> str:
    """Return the time for `Correction.when`."""
    return datetime.now(UTC).isoformat(timespec="seconds")


# What was read of a log: the entries of an object by its name and size.
Known: TypeAlias = MutableMapping[tuple[str, int], Sequence["Correction"]]


def load(s3: Client, bucket: str, name: str, known: Known | None = None) -> Log:
    """Read the log of a data set; empty where there is none.

    Args:
        s3: boto3 client of S3.
        bucket: Name of the project's bucket.
        name: Name of the data set.
        known: Objects that need not be read again, to which those that are read are added.

    Raises:
        CorrectionError: An object of the log is damaged, or from a newer release.
    """
    from model_code.process.parallel import ordered_map

    uri = _folder(bucket, name)
    kept: Known = {} if known is None else known
    found = sorted(item for item in objects.sizes(s3, uri) if item[0].endswith(".jsonl"))
    new = [item for item in found if item not in kept]
    kept.update(zip(new, ordered_map(lambda item: _read(s3, uri + item[0]), new, _READERS), strict=True))
    return Log(tuple(entry for item in found for entry in kept[item]))


def append(s3: Client, bucket: str, name: str, entries: Iterable[Correction]) -> str:
    """Add corrections to the log, all of them or none; returns the URI of the object that holds them.

    Raises:
        CorrectionError: There are none.
    """
    from botocore.exceptions import ClientError

    body = "".join(f"{to_line(entry)}\n" for entry in entries)
    if not body:
        raise CorrectionError("no correction to write")
    uri = _folder(bucket, name)
    last = max((key for key in objects.keys(s3, uri) if key.endswith(".jsonl")), default="0")
    number = int(last.removesuffix(".jsonl"))
    _, prefix = objects.split_uri(uri)
    while True:
        number += 1
        key = f"{prefix}{number:08d}.jsonl"
        try:
            s3.put_object(Bucket=bucket, Key=key, Body=body.encode(), IfNoneMatch="*")
        except ClientError as error:
            if error.response["Error"]["Code"] not in _LOST_RACE:
                raise
            continue
        return f"s3://{bucket}/{key}"


def _folder(bucket: str, name: str) -> str:
    return f"s3://{bucket}/datasets/{name}/corrections/"


def _read(s3: Client, uri: str) -> list[Correction]:
    try:
        lines = [json.loads(line) for line in objects.read(s3, uri).decode().splitlines()]
        if any(line["schema_version"] > SCHEMA_VERSION for line in lines):
            raise CorrectionError(f"{uri} was written by a newer release; update ml-pipeline")
        return [
            Correction(
                line["sha256"], Action(line["action"]), line["label"], line["who"], line["when"], line["why"]
            )
            for line in lines
        ]
    except CorrectionError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise CorrectionError(
            f"{uri} is damaged ({error!r}); restore it, or delete it to drop its entries"
        ) from error
