"""CloudWatch Logs: live output of jobs, and events that clients put."""

from __future__ import annotations

import itertools
import shlex
import time
from typing import Any

from local_aws.context import Context
from local_aws.errors import AwsError
from local_aws.gateway.json_service import Call, Document, JsonService, Operations, page
from local_aws.state.logs import Event, Group, Stream

operation = Operations("logs")
HOUR = 3_600_000
DAY = 24 * HOUR
EVENT_OVERHEAD = 26
"""Bytes that AWS adds to each event's message."""
MOST_BATCH_BYTES = 1_048_576
RETENTIONS = frozenset(
    {1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653}
)


class Logs(JsonService):
    """The service."""

    def __init__(self, context: Context) -> None:
        super().__init__(operation, context)


@operation("CreateLogGroup")
def create_log_group(call: Call) -> None:
    """Create an empty log group."""
    name = call.params["logGroupName"]
    if not call.context.logs.create_group(call.region, name):
        raise AwsError("ResourceAlreadyExistsException", "The specified log group already exists")
    call.context.store.tag(_group_arn(call, name), call.params.get("tags", {}))


@operation("DeleteLogGroup")
def delete_log_group(call: Call) -> None:
    """Delete a log group with its streams."""
    if not call.context.logs.delete_group(call.region, call.params["logGroupName"]):
        raise _no_group()


@operation("DescribeLogGroups")
def describe_log_groups(call: Call) -> Document:
    """List log groups by prefix or pattern, in order of name."""
    params = call.params
    pattern = params.get("logGroupNamePattern", "")
    groups = call.context.logs.groups(call.region, params.get("logGroupNamePrefix", ""))
    found = [_group_entry(call, group) for group in groups if pattern in group.name]
    return page("logGroups", found, params.get("nextToken"), params.get("limit", 50))


@operation("PutRetentionPolicy")
def put_retention_policy(call: Call) -> None:
    """Set the number of days that events are kept."""
    if call.params["retentionInDays"] not in RETENTIONS:
        allowed = ", ".join(map(str, sorted(RETENTIONS)))
        raise _invalid(
            f"1 validation error detected: Value '{call.params['retentionInDays']}' at 'retentionInDays' failed to "
            f"satisfy constraint: Member must satisfy enum value set: [{allowed}]",
        )
    if not call.context.logs.set_retention(
        call.region, call.params["logGroupName"], call.params["retentionInDays"]
    ):
        raise _no_group()


@operation("DeleteRetentionPolicy")
def delete_retention_policy(call: Call) -> None:
    """Keep events without limit."""
    if not call.context.logs.set_retention(call.region, call.params["logGroupName"], None):
        raise _no_group()


@operation("CreateLogStream")
def create_log_stream(call: Call) -> None:
    """Create an empty log stream."""
    group = _group(call)
    if not call.context.logs.create_stream(call.region, group, call.params["logStreamName"]):
        raise AwsError("ResourceAlreadyExistsException", "The specified log stream already exists")


@operation("DeleteLogStream")
def delete_log_stream(call: Call) -> None:
    """Delete a log stream with its events."""
    if not call.context.logs.delete_stream(call.region, _group(call), call.params["logStreamName"]):
        raise _no_stream()


@operation("DescribeLogStreams")
def describe_log_streams(call: Call) -> Document:
    """List streams by prefix, in order of name or of their last event."""
    params = call.params
    group = _group(call)
    by_time = params.get("orderBy") == "LastEventTime"
    if by_time and "logStreamNamePrefix" in params:
        raise _invalid("Cannot order by LastEventTime with a logStreamNamePrefix.")
    streams = call.context.logs.streams(call.region, group, params.get("logStreamNamePrefix", ""))
    if by_time:
        streams.sort(key=lambda stream: (stream.last or 0, stream.name))
    if params.get("descending"):
        streams.reverse()
    found = [_stream_entry(call, group, stream) for stream in streams]
    return page("logStreams", found, params.get("nextToken"), params.get("limit", 50))


@operation("PutLogEvents")
def put_log_events(call: Call) -> Document:
    """Store a client's events."""
    group, stream = _group(call), call.params["logStreamName"]
    if not call.context.logs.has_stream(call.region, group, stream):
        raise _no_stream()
    events = [(event["timestamp"], event["message"]) for event in call.params["logEvents"]]
    now = int(time.time() * 1000)
    accepted, rejected = accept(events, now, call.context.logs.retention(call.region, group))
    if accepted:
        call.context.logs.append(call.region, group, stream, accepted)
    return {"nextSequenceToken": "0", **({"rejectedLogEventsInfo": rejected} if rejected else {})}


def accept(
    events: list[tuple[int, str]], now: int, retention: int | None
) -> tuple[list[tuple[int, str]], Document]:
    """Choose the events of a PutLogEvents request that are neither too old nor too new.

    Args:
        events: (epoch milliseconds, message) in order.
        now: epoch milliseconds.
        retention: days that the group keeps events, None without limit.

    Returns:
        The events to store, and the members of rejectedLogEventsInfo.

    Raises:
        AwsError: the request breaks a rule for the whole batch: order, span, sizes.
    """
    times = [timestamp for timestamp, _ in events]
    if any(later < earlier for earlier, later in itertools.pairwise(times)):
        raise _invalid("Log events in a single PutLogEvents request must be in chronological order.")
    if times and times[-1] - times[0] > DAY:
        raise _invalid(
            "The batch of log events in a single PutLogEvents request cannot span more than 24 hours."
        )
    size = sum(len(message.encode("utf-8", "replace")) + EVENT_OVERHEAD for _, message in events)
    if size > MOST_BATCH_BYTES:
        raise _invalid(f"Upload too large: {size} bytes exceeds limit of {MOST_BATCH_BYTES}")
    expired = now - retention * DAY if retention else None
    old, new = now - 14 * DAY, now + 2 * HOUR
    info: Document = {}
    past_retention = sum(time < expired for time in times) if expired is not None else 0
    too_old = sum(time < old for time in times)
    too_new = next((number for number, time in enumerate(times) if time > new), None)
    if past_retention:
        info["expiredLogEventEndIndex"] = past_retention
    if too_old:
        info["tooOldLogEventEndIndex"] = too_old
    if too_new is not None:
        info["tooNewLogEventStartIndex"] = too_new
    return events[max(past_retention, too_old) : too_new], info


@operation("GetLogEvents")
def get_log_events(call: Call) -> Document:
    """Return events of one stream, forwards or backwards; an unchanged token means no more for now."""
    params = call.params
    group, stream = _group(call), params["logStreamName"]
    if not call.context.logs.has_stream(call.region, group, stream):
        raise _no_stream()
    bounds: dict[str, Any] = {"start": params.get("startTime"), "end": params.get("endTime")}
    token = params.get("nextToken", "")
    direction, position = _read_position(token)
    if direction == "f":
        bounds["after"] = position
    elif direction == "b":
        bounds |= {"before": position, "newest": True}
    else:
        bounds["newest"] = not params.get("startFromHead", False)
    events = call.context.logs.events(call.region, group, stream, limit=params.get("limit", 10_000), **bounds)
    last = events[-1].id if events else position if direction else 0
    first = events[0].id if events else position if direction else 0
    return {
        "events": [
            {"timestamp": event.timestamp, "message": event.message, "ingestionTime": event.ingested}
            for event in events
        ],
        "nextForwardToken": _position("f", last),
        "nextBackwardToken": _position("b", first),
    }


@operation("FilterLogEvents")
def filter_log_events(call: Call) -> Document:
    """Return events of a group by stream, time and terms."""
    params = call.params
    group = _group(call)
    limit = params.get("limit", 10_000)
    _, position = _read_position(params.get("nextToken", ""))
    wanted = set(params.get("logStreamNames", []))
    events = call.context.logs.events(
        call.region,
        group,
        prefix=params.get("logStreamNamePrefix", ""),
        start=params.get("startTime"),
        end=params.get("endTime"),
        after=position,
        limit=limit + 1,
    )
    more = len(events) > limit
    events = events[:limit]
    matches = _filter(params.get("filterPattern", ""))
    found = [e for e in events if (not wanted or e.stream in wanted) and matches(e.message)]
    answer: Document = {"events": [_filtered_entry(event) for event in found], "searchedLogStreams": []}
    if more:
        answer["nextToken"] = _position("f", events[-1].id)
    return answer


@operation("TagResource")
def tag_resource(call: Call) -> None:
    """Tag a log group."""
    call.context.store.tag(call.params["resourceArn"], call.params["tags"])


@operation("UntagResource")
def untag_resource(call: Call) -> None:
    """Remove tags of a log group."""
    call.context.store.untag(call.params["resourceArn"], call.params["tagKeys"])


@operation("ListTagsForResource")
def list_tags_for_resource(call: Call) -> Document:
    """List the tags of a log group."""
    return {"tags": call.context.store.tags(call.params["resourceArn"])}


def _group(call: Call) -> str:
    name = (
        call.params.get("logGroupName")
        or call.params.get("logGroupIdentifier", "").rpartition("log-group:")[2]
    )
    if not call.context.logs.has_group(call.region, name):
        raise _no_group()
    return str(name)


def _invalid(message: str) -> AwsError:
    return AwsError("InvalidParameterException", message)


def _no_group() -> AwsError:
    return AwsError("ResourceNotFoundException", "The specified log group does not exist.")


def _no_stream() -> AwsError:
    return AwsError("ResourceNotFoundException", "The specified log stream does not exist.")


def _group_arn(call: Call, name: str) -> str:
    return call.arn(f"log-group:{name}", service="logs")


def _group_entry(call: Call, group: Group) -> Document:
    entry: Document = {
        "logGroupName": group.name,
        "creationTime": int(group.created * 1000),
        "metricFilterCount": 0,
        "arn": _group_arn(call, group.name) + ":*",
        "logGroupArn": _group_arn(call, group.name),
        "storedBytes": group.stored_bytes,
        "logGroupClass": "STANDARD",
    }
    if group.retention is not None:
        entry["retentionInDays"] = group.retention
    return entry


def _stream_entry(call: Call, group: str, stream: Stream) -> Document:
    entry: Document = {
        "logStreamName": stream.name,
        "creationTime": int(stream.created * 1000),
        "arn": f"{_group_arn(call, group)}:log-stream:{stream.name}",
        "uploadSequenceToken": "0",
        "storedBytes": 0,
    }
    if stream.last is not None:
        entry |= {
            "firstEventTimestamp": stream.first,
            "lastEventTimestamp": stream.last,
            "lastIngestionTime": stream.ingested,
        }
    return entry


def _filtered_entry(event: Event) -> Document:
    return {
        "logStreamName": event.stream,
        "timestamp": event.timestamp,
        "message": event.message,
        "ingestionTime": event.ingested,
        "eventId": f"{event.id:056d}",
    }


def _position(direction: str, event_id: int) -> str:
    return f"{direction}/{event_id:056d}"


def _read_position(token: str) -> tuple[str, int]:
    direction, _, number = token.partition("/")
    if not token:
        return "", 0
    if direction not in ("f", "b") or not number.isdigit():
        raise _invalid("The specified nextToken is invalid.")
    return direction, int(number)


def _filter(pattern: str) -> Any:
    """Compile a term pattern: all terms, `?term` any, `-term` none; quotes keep spaces."""
    if pattern.strip().startswith(("{", "[", "%")):
        raise _invalid("local_aws filters by terms only, not by JSON or regex patterns.")
    try:
        terms = shlex.split(pattern)
    except ValueError as error:
        raise _invalid(f"Invalid filter pattern: {error}") from error
    any_of = [term[1:] for term in terms if term.startswith("?")]
    none_of = [term[1:] for term in terms if term.startswith("-")]
    all_of = [term for term in terms if not term.startswith(("?", "-"))]

    def matches(message: str) -> bool:
        return (
            all(term in message for term in all_of)
            and not any(term in message for term in none_of)
            and (not any_of or any(term in message for term in any_of))
        )

    return matches
