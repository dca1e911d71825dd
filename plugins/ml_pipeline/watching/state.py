"""The memory of a watch: which captures were looked at, and what every look found. One document per endpoint in S3.

It is written with If-Match: of two looks that end at once, each sees what the other wrote, and nothing is lost.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from ml_pipeline.aws.clients import Client
from ml_pipeline.requests.types import Document
from ml_pipeline.watching.decisions import Look

SCHEMA_VERSION = 1
# A capture file may be written so long after its hour has ended, or by a clock that is so wrong.
LATE = timedelta(days=2)
KEPT_LOOKS = 1000
_LOST_RACE = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})


class WatchError(RuntimeError):
    """A watch whose memory cannot be read; the text names the fix."""


@dataclass(frozen=True)
class Window:
    """The captures of one look, fixed before its job starts, so that every try looks at the same.

    Attributes:
        keys: Names of capture files below the endpoint's prefix.
        since, until: The time that the look covers.
    """

    number: int
    keys: tuple[str, ...]
    since: datetime
    until: datetime


@dataclass(frozen=True)
class Taken:
    """A finished look with what people want to know of it."""

    look: Look
    verdict: str
    reason: str
    page_uri: str
    truth: Document | None = None
    unknown: float | None = None


@dataclass(frozen=True)
class State:
    """See the module.

    Attributes:
        looks: Finished looks, oldest first.
        seen: Names of capture files that a finished look has counted, not older than `LATE`.
        open: The window of a look that has begun.
        quiet_until: No proposal before.
        proposals: Number of the look of each proposal.
    """

    looks: tuple[Taken, ...] = ()
    seen: frozenset[str] = frozenset()
    open: Window | None = None
    quiet_until: datetime | None = None
    proposals: tuple[int, ...] = ()
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def next_number(self) -> int:
        """Number of the next look, from 1."""
        return self.looks[-1].look.number + 1 if self.looks else 1

    @property
    def covered_until(self) -> datetime | None:
        """End of the last look that was not too few."""
        counted = [taken.look.ended for taken in self.looks if taken.verdict != "too few"]
        return counted[-1] if counted else None

    def floor(self) -> str:
        """Least name of a capture file that may be new: files are named by the hour, yyyy/mm/dd/hh/..."""
        if not self.seen:
            return ""
        newest = datetime.strptime(max(self.seen)[:13], "%Y/%m/%d/%H").replace(tzinfo=UTC)
        if self.covered_until:  # the clock that named the file may be ahead of ours
            newest = min(newest, self.covered_until)
        return f"{newest - LATE:%Y/%m/%d/%H}"

    def begun(self, window: Window) -> State:
        """Return the state with a look under way."""
        return replace(self, open=window)

    def ended(self, taken: Taken, *, counted: bool, proposal: bool, cooldown: timedelta) -> State:
        """Return the state with the look under way finished.

        Args:
            taken: The look under way.
            counted: False: too few photos, which the next look counts again.
            proposal: The look is a proposal.
            cooldown: Time after a proposal during which no other is made.
        """
        window = self.open
        assert window is not None
        after = replace(self, looks=(*self.looks, taken)[-KEPT_LOOKS:], open=None)
        if counted:
            seen = after.seen | set(window.keys)
            after = replace(after, seen=seen)
            after = replace(after, seen=frozenset(key for key in seen if key >= after.floor()))
        if proposal:
            number = taken.look.number
            until = taken.look.ended + cooldown
            after = replace(after, proposals=(*after.proposals, number), quiet_until=until)
        return after


def uri(bucket: str, endpoint: str) -> str:
    """Return the URI of an endpoint's state."""
    return f"s3://{bucket}/watch/{endpoint}/state.json"


def load(s3: Client, bucket: str, endpoint: str) -> tuple[State, str | None]:
    """The state and its ETag; an empty one, and None, where nothing was ever looked at.

    Raises:
        WatchError: The document is damaged, or of a newer release.
    """
    from botocore.exceptions import ClientError

    try:
        answer = s3.get_object(Bucket=bucket, Key=f"watch/{endpoint}/state.json")
    except ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
            return State(), None
        raise
    where = uri(bucket, endpoint)
    try:
        return from_json(json.loads(answer["Body"].read())), answer["ETag"]
    except (ValueError, KeyError, TypeError) as error:
        raise WatchError(
            f"{where} is damaged ({error!r}): restore an older version of it, or delete it"
        ) from error


def change(s3: Client, bucket: str, endpoint: str, step: Callable[[State], State]) -> State:
    """Apply `step` to the state and write it; tried again on what another writer left.

    Args:
        s3: boto3 client of S3.
        bucket: Name of the project's bucket.
        endpoint: Name of the endpoint.
        step: A pure function; returns its argument where nothing is to be done.
    """
    from botocore.exceptions import ClientError

    while True:
        state, tag = load(s3, bucket, endpoint)
        after = step(state)
        if after is state:
            return state
        condition = {"IfMatch": tag} if tag else {"IfNoneMatch": "*"}
        body = json.dumps(to_json(after), separators=(",", ":")).encode()
        try:
            s3.put_object(Bucket=bucket, Key=f"watch/{endpoint}/state.json", Body=body, **condition)
        except ClientError as error:
            if error.response["Error"]["Code"] not in _LOST_RACE:
                raise
            continue
        return after


def to_json(state: State) -> Document:
    """The document."""
    window = state.open
    return {
        "schema_version": SCHEMA_VERSION,
        "created": state.created.isoformat(),
        "looks": [_taken_to_json(taken) for taken in state.looks],
        "seen": sorted(state.seen),
        "open": None
        if window is None
        else {
            "number": window.number,
            "keys": list(window.keys),
            "since": window.since.isoformat(),
            "until": window.until.isoformat(),
        },
        "quiet_until": state.quiet_until.isoformat() if state.quiet_until else None,
        "proposals": list(state.proposals),
    }


def from_json(document: Document) -> State:
    """Inverse of `to_json`.

    Raises:
        ValueError: Of a newer release.
    """
    if document["schema_version"] > SCHEMA_VERSION:
        raise ValueError("it was written by a newer release: update ml-pipeline")
    window = document["open"]
    return State(
        looks=tuple(_taken_from_json(entry) for entry in document["looks"]),
        seen=frozenset(document["seen"]),
        open=None
        if window is None
        else Window(window["number"], tuple(window["keys"]), _time(window["since"]), _time(window["until"])),
        quiet_until=_time(document["quiet_until"]) if document["quiet_until"] else None,
        proposals=tuple(document["proposals"]),
        created=_time(document["created"]),
    )


def _taken_to_json(taken: Taken) -> Document:
    look = {**vars(taken.look), "ended": taken.look.ended.isoformat()}
    return {**vars(taken), "look": look}


def _taken_from_json(entry: Document) -> Taken:
    look = Look(**{**entry["look"], "ended": _time(entry["look"]["ended"])})
    return Taken(**{**entry, "look": look})


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
