"""CloudWatch Logs answers as AWS does: rejected events, refused batches, unknown names."""

from __future__ import annotations

import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local_aws.logs.service import DAY, HOUR, accept
from tests.local_aws.cloud import Cloud, unique

NOW = 1_800_000_000_000


def refused(call: Any, **params: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**params)
    return str(caught.value.response["Error"]["Code"])


def test_events_that_are_too_old_or_too_new_are_rejected() -> None:
    times = [NOW - 14 * DAY - 2, NOW - 14 * DAY - 1, NOW - 14 * DAY + HOUR]
    events = [(moment, "m") for moment in times]
    assert accept(events, NOW, None) == (events[2:], {"tooOldLogEventEndIndex": 2})
    late = [(NOW, "a"), (NOW + 2 * HOUR, "b"), (NOW + 2 * HOUR + 1, "c")]
    assert accept(late, NOW, None) == (late[:2], {"tooNewLogEventStartIndex": 2})
    assert accept([(NOW - 2 * DAY, "a"), (NOW - DAY + 1, "b")][:1], NOW, 1) == (
        [],
        {"expiredLogEventEndIndex": 1},
    )


@pytest.mark.parametrize(
    "events",
    [
        [(NOW, "a"), (NOW - 1, "b")],
        [(NOW - DAY - 1, "a"), (NOW, "b")],
        [(NOW, "x" * 600_000), (NOW, "y" * 600_000)],
    ],
    ids=["order", "span", "size"],
)
def test_batches_that_break_a_rule_are_refused_whole(events: list[tuple[int, str]]) -> None:
    with pytest.raises(Exception, match="InvalidParameterException"):
        accept(events, NOW, None)


def test_the_service_tells_what_it_rejected(cloud: Cloud) -> None:
    logs, group = cloud.client("logs"), unique("group")
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName="s")
    now = int(time.time() * 1000)
    put: dict[str, Any] = {"logGroupName": group, "logStreamName": "s"}
    answer = logs.put_log_events(**put, logEvents=[{"timestamp": now, "message": "kept"}])
    assert "rejectedLogEventsInfo" not in answer
    answer = logs.put_log_events(**put, logEvents=[{"timestamp": now - 15 * DAY, "message": "old"}])
    assert answer["rejectedLogEventsInfo"] == {"tooOldLogEventEndIndex": 1}
    events = logs.get_log_events(**put, startFromHead=True)["events"]
    assert [event["message"] for event in events] == ["kept"]
    assert refused(
        logs.put_log_events, **put | {"logStreamName": "none"}, logEvents=[{"timestamp": now, "message": "m"}]
    ) == ("ResourceNotFoundException")
    assert refused(logs.describe_log_streams, logGroupName="none") == "ResourceNotFoundException"
    assert refused(logs.create_log_group, logGroupName=group) == "ResourceAlreadyExistsException"
    assert (
        refused(logs.put_retention_policy, logGroupName=group, retentionInDays=2)
        == "InvalidParameterException"
    )
    logs.put_retention_policy(logGroupName=group, retentionInDays=7)
    assert logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"][0]["retentionInDays"] == 7
