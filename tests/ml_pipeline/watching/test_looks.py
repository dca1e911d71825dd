"""Looks follow each other without losing a capture or counting one twice."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ml_pipeline.aws import s3 as objects
from ml_pipeline.registry.packages import Package
from ml_pipeline.watching import looks, state, timeline
from ml_pipeline.watching.decisions import Policy
from ml_pipeline.watching.endpoints import Watched
from tests.ml_pipeline.watching.conftest import BUCKET

POLICY = Policy()
START = datetime(2026, 1, 1, tzinfo=UTC)
PACKAGE = Package("arn", "Approved", "s3://m", "image", {"dataset_version": "v1"})
ENDPOINT = Watched(
    "dogs", "InService", "s3://m", PACKAGE, "dogs", f"s3://{BUCKET}/c/7d/dogs/main/", "ml.m5.large", START
)


def capture(s3: Any, hour: int, name: str = "a") -> str:
    at = START + timedelta(hours=hour)
    key = f"{at:%Y/%m/%d/%H}/00-00-{name}.jsonl"
    s3.put_object(Bucket=BUCKET, Key=f"c/7d/dogs/main/{key}", Body=b"{}\n")
    return key


def document(photos: int = 200, p: float = 0.5, accuracy: float = 0.8) -> dict[str, Any]:
    value = {"value": accuracy, "low": accuracy - 0.04, "high": accuracy + 0.04, "photos": photos}
    return {
        "photos": photos, "p": p, "model": "m", "accuracy": value if photos >= 20 else None,
        "reference": {"accuracy": 0.8, "photos": 2400}, "truth": None, "unknown": {"share": 0.1},
    }  # fmt: skip


def begin(s3: Any, hour: int) -> looks.Begun | None:
    return looks.begin(s3, BUCKET, ENDPOINT, POLICY, START + timedelta(hours=hour))


def take(s3: Any, hour: int, **found: Any) -> looks.Concluded:
    begun = begin(s3, hour)
    assert begun is not None
    return looks.conclude(s3, BUCKET, begun, f"s3://{BUCKET}/look/", document(**found), POLICY)


def files(s3: Any, number: int) -> list[str]:
    return objects.read_json(s3, looks.manifest_uri(BUCKET, "dogs", number))[1:]


def test_each_capture_is_looked_at_once(s3) -> None:
    first = capture(s3, 1)
    take(s3, 2)
    assert begin(s3, 3) is None
    second = capture(s3, 3)
    take(s3, 4)
    assert (files(s3, 1), files(s3, 2)) == ([first], [second])


def test_a_capture_that_is_written_late_is_not_lost(s3) -> None:
    capture(s3, 20)
    take(s3, 21)
    late = capture(s3, 10, "late")
    take(s3, 22)
    assert files(s3, 2) == [late]


def test_a_capture_named_by_a_clock_that_is_ahead_hides_no_later_one(s3) -> None:
    ahead = capture(s3, 24 * 400)
    take(s3, 1)
    now = capture(s3, 1)
    take(s3, 2)
    assert (files(s3, 1), files(s3, 2)) == ([ahead], [now])
    assert begin(s3, 3) is None


def test_a_look_that_was_killed_is_begun_again_with_the_same_captures(s3) -> None:
    capture(s3, 1)
    begun = begin(s3, 2)
    capture(s3, 3)
    assert begin(s3, 4) == begun


def test_a_look_that_is_concluded_twice_counts_once(s3) -> None:
    capture(s3, 1)
    begun = begin(s3, 2)
    once = looks.conclude(s3, BUCKET, begun, "s3://l/", document(p=0.00001, accuracy=0.5), POLICY)
    again = looks.conclude(s3, BUCKET, begun, "s3://l/", document(p=0.9), POLICY)
    assert once == again
    assert len(state.load(s3, BUCKET, "dogs")[0].looks) == 1


def test_a_model_deployed_after_a_proposal_is_compared_with_the_photos_that_led_to_it(s3) -> None:
    led = []
    for hour in (0, 2):
        led.append(capture(s3, hour))
        assert take(s3, hour + 1, p=0.00001, accuracy=0.5)
    capture(s3, 4)
    later = replace(ENDPOINT, since=START + timedelta(hours=4))
    gone = objects.split_uri(str(ENDPOINT.captures_uri))[1] + led[0]
    for expected in (led, led[1:]):
        begun = looks.begin(s3, BUCKET, later, POLICY, START + timedelta(hours=5))
        assert begun is not None
        assert begun["accepted"] == len(expected)
        uri = looks.manifest_uri(BUCKET, "dogs", begun["number"], "accepted")
        assert objects.read_json(s3, uri)[1:] == expected
        s3.delete_object(Bucket=BUCKET, Key=gone)  # its retention is over
    before = looks.begin(s3, BUCKET, ENDPOINT, POLICY, START + timedelta(hours=5))
    assert before is not None
    assert before["accepted"] == 0


def test_two_changed_looks_make_one_proposal_and_then_it_cools_down(s3) -> None:
    verdicts = []
    for hour in range(0, 8, 2):
        capture(s3, hour)
        verdicts.append(take(s3, hour + 1, p=0.00001, accuracy=0.5)["verdict"])
    assert verdicts == ["alarm", "proposal", "alarm", "alarm"]
    assert state.load(s3, BUCKET, "dogs")[0].proposals == (2,)


def test_too_few_photos_wait_for_the_next_look(s3) -> None:
    few = capture(s3, 1)
    assert take(s3, 2, photos=3)["verdict"] == "too few"
    more = capture(s3, 2, "b")
    assert take(s3, 3)["verdict"] == "quiet"
    assert files(s3, 2) == [few, more]
    assert begin(s3, 4) is None


def test_writers_at_once_lose_nothing(s3) -> None:
    """The second writer's condition fails, and it starts from what the first has left."""
    calls = []

    def step(before: state.State) -> state.State:
        calls.append(before)
        if len(calls) == 1:
            capture(s3, 1)
            begin(s3, 2)
        window = state.Window(9, ("x",), START, START)
        return before.begun(window) if before.open is None else before

    after = state.change(s3, BUCKET, "dogs", step)
    assert len(calls) == 2
    assert after.open is not None
    assert after.open.number == 1


def test_a_state_survives_its_json(s3) -> None:
    capture(s3, 1)
    take(s3, 2)
    capture(s3, 3)
    begin(s3, 4)
    kept, _ = state.load(s3, BUCKET, "dogs")
    assert state.from_json(state.to_json(kept)) == kept
    newer = {**state.to_json(kept), "schema_version": 99}
    objects.write_json(s3, state.uri(BUCKET, "dogs"), newer)
    with pytest.raises(state.WatchError, match="newer release"):
        state.load(s3, BUCKET, "dogs")


def test_what_cannot_be_watched_says_why() -> None:
    off = Watched("dogs", "InService", "s3://m", PACKAGE, "dogs", None, None, START)
    assert "capture_days" in (off.trouble or "")
    gone = Watched("dogs", "Failed", "s3://m", PACKAGE, "dogs", "s3://c/", None, START)
    assert "nothing serves" in (gone.trouble or "")
    assert ENDPOINT.trouble is None


def test_an_endpoint_without_traffic_is_named_with_its_cost() -> None:
    week = looks.idle(state.State(), ENDPOINT, 0.115, START + timedelta(days=10))
    assert "no traffic for 10 days" in (week or "")
    assert "$27.60" in (week or "")
    assert looks.idle(state.State(), ENDPOINT, 0.115, START + timedelta(days=6)) is None


def test_metrics_and_time_line_show_the_look(s3) -> None:
    capture(s3, 1)
    concluded = take(s3, 2, p=0.00001)
    values = {item["MetricName"]: item["Value"] for item in looks.metrics(concluded, document(p=0.00001))}
    assert values == {"Photos": 200, "Drift": 1, "EstimatedAccuracy": 0.8, "UnknownShare": 0.1}
    timeline.publish(s3, BUCKET, "dogs")
    page = objects.read(s3, f"s3://{BUCKET}/watch/dogs/timeline.html").decode()
    assert "alarm" in page
    assert "page.html" in page
