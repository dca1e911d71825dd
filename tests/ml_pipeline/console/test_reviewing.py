"""Answers of people: the review queue and the suspects of the data check, corrections, classes renamed and merged."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ml_pipeline.dataset import corrections
from ml_pipeline.dataset.corrections import Action, Log
from ml_pipeline.dataset.upload import upload
from ml_pipeline.watching import reviews
from ml_pipeline.watching.forget.sweep import forget
from tests.ml_pipeline.console.conftest import BUCKET, EVIL, SHARD, VERSION, Console, put
from tests.model_code.photo_files import folder_of_photos, photo

SUSPECT = f"{1:064x}"
LISTED = {"key": f"{1:020x}", "split": "train", "suggestion": "cat", "odds": 2.0}
ORIGIN = {"Origin": "http://testserver"}


def queued(console: Console, seed: int) -> str:
    """A photo of the traffic in the queue; returns its SHA-256."""
    s3, data = console.store.client("s3"), photo(seed)
    sha256 = hashlib.sha256(data).hexdigest()
    for suffix in ("", ".jpg"):
        put(s3, f"look/queue/{sha256}{suffix}", data)
    entry = {"sha256": sha256, "prediction": "cat", "probability": 0.4, "why": "uncertain"}
    reviews.enqueue(s3, BUCKET, "dogs", f"s3://{BUCKET}/look/", [entry], "photos")
    return sha256


def suspected(console: Console) -> str:
    """A photo of the data set that the data check asks about; returns its SHA-256."""
    assert reviews.enqueue_suspects(console.store.client("s3"), BUCKET, "dogs", VERSION, [LISTED]) == 1
    return SUSPECT


def answer(console: Console, who: str = "admin", **given: Any) -> Any:
    """Post an answer; without an action it is taken back."""
    headers = {**(console.admin if who == "admin" else console.as_user(who)), **ORIGIN}
    return console.client.post(
        "/ml-pipeline/api/review", params={"name": "dogs"}, json=given, headers=headers
    )


def log(console: Console) -> Log:
    return corrections.load(console.store.client("s3"), BUCKET, "dogs")


def test_the_queue_holds_photos_of_the_traffic_and_suspects_of_the_check(console: Console) -> None:
    sent = {queued(console, 900): None, suspected(console): EVIL}
    found = console.get("review", name="dogs").json()
    assert {row["sha256"]: row["label"] for row in found["photos"]} == sent
    assert {(row["why"], row["shard"]) for row in found["photos"]} == {("uncertain", ""), ("suspect", SHARD)}
    assert (found["waiting"], found["missing"], found["classes"]) == (2, None, [EVIL, "cat"])


def test_a_data_set_without_a_version_still_has_a_queue(console: Console) -> None:
    sha256 = queued(console, 900)
    console.store.client("s3").delete_object(Bucket=BUCKET, Key="datasets/dogs/latest.json")
    found = console.get("review", name="dogs").json()
    assert [row["sha256"] for row in found["photos"]] == [sha256]
    assert "is gone" in found["missing"]


def test_a_suspect_keeps_its_picture_when_another_photo_is_forgotten(
    console: Console, tmp_path: Path
) -> None:
    s3 = console.store.client("s3")
    # Of no real upload: forget would refuse it.
    s3.delete_object(Bucket=BUCKET, Key="datasets/dogs/latest.json")
    made = upload(s3, BUCKET, "cats", str(folder_of_photos(tmp_path, {"a": 6, "b": 6})))
    rows = s3.get_object(Bucket=BUCKET, Key=f"datasets/cats/versions/{made['version']}/photos.jsonl")["Body"]
    suspect, gone = [row for row in map(json.loads, rows.iter_lines()) if row["split"] == "train"][:2]
    assert suspect["shard"] == gone["shard"]
    found = {**LISTED, "key": suspect["key"]}
    assert reviews.enqueue_suspects(s3, BUCKET, "cats", made["version"], [found]) == 1
    shards = []
    for photos in ([], [gone["sha256"]]):
        forget(s3, BUCKET, frozenset(photos))
        console.store._brief.clear()
        (asked,) = console.get("review", name="cats").json()["photos"]
        shown = console.get("data/thumbnail", name="cats", sha256=asked["sha256"], shard=asked["shard"])
        assert (asked["label"], shown.status_code) == (suspect["class"], 200)
        shards.append(asked["shard"])
    assert shards[0] == suspect["shard"] != shards[1]


def test_a_suspect_that_the_newest_version_lacks_has_the_shard_of_its_question(console: Console) -> None:
    suspected(console)
    put(console.store.client("s3"), f"datasets/dogs/versions/{VERSION}/photos.jsonl", b"")
    (asked,) = console.get("review", name="dogs").json()["photos"]
    assert (asked["label"], asked["shard"]) == (None, SHARD)


@pytest.mark.parametrize("body", [b"{", b"{}", b"[1]"], ids=["cut off", "an older release", "no document"])
def test_a_damaged_question_is_left_out(console: Console, body: bytes) -> None:
    good, damaged = queued(console, 900), queued(console, 901)
    put(console.store.client("s3"), f"datasets/dogs/reviews/queue/{damaged}.json", body)
    found = console.get("review", name="dogs").json()
    assert ([row["sha256"] for row in found["photos"]], found["waiting"]) == ([good], 1)


def test_a_question_that_goes_while_the_queue_is_read_is_left_out(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = [queued(console, 900), "0" * 64]
    monkeypatch.setattr(reviews, "waiting", lambda *_: listed)
    assert [row["sha256"] for row in console.get("review", name="dogs").json()["photos"]] == listed[:1]


@pytest.mark.parametrize("asked", [queued, suspected], ids=["traffic", "data check"])
def test_an_answer_leaves_the_queue_and_comes_back_when_undone(console: Console, asked: Any) -> None:
    sha256 = queued(console, 900) if asked is queued else suspected(console)
    for _ in range(3):
        assert answer(
            console, sha256=sha256, action="label", label="cat"
        ).json() == {"open": False}  # fmt: skip
        assert log(console).newest()[sha256].label == "cat"
        assert log(console).newest()[sha256].who == "admin"
        assert sha256 not in [row["sha256"] for row in console.get("review", name="dogs").json()["photos"]]
        assert answer(console, sha256=sha256).json() == {"open": True}
        assert log(console).newest()[sha256].action is Action.KEEP
        assert sha256 in [row["sha256"] for row in console.get("review", name="dogs").json()["photos"]]


def test_undo_brings_back_what_was_said_before(console: Console) -> None:
    suspected(console)
    correct(console, photos=[SUSPECT], action="label", label="lion")
    answer(console, sha256=SUSPECT, action="reject")
    assert log(console).newest()[SUSPECT].action is Action.REJECT
    answer(console, sha256=SUSPECT)
    assert log(console).newest()[SUSPECT].label == "lion"


def test_of_two_reviewers_at_once_one_is_told_what_the_other_said(console: Console) -> None:
    sha256 = queued(console, 900)
    with ThreadPoolExecutor() as pool:
        sent = [
            pool.submit(answer, console, who, sha256=sha256, action="label", label=label)
            for who, label in (("ann", "cat"), ("bob", "lion"))
        ]
        statuses = sorted(one.result().status_code for one in sent)
    assert statuses == [200, 409]
    told = next(one.result().json()["detail"] for one in sent if one.result().status_code == 409)
    assert "has answered" in told
    assert len(log(console).entries) == 1


def test_only_the_reviewer_takes_an_answer_back(console: Console) -> None:
    sha256 = queued(console, 900)
    assert answer(console, sha256=sha256).status_code == 409  # no one has answered yet
    answer(console, "ann", sha256=sha256, action="reject")
    refused = answer(console, "bob", sha256=sha256)
    assert refused.status_code == 409
    assert "only ann" in refused.json()["detail"]
    assert answer(console, "ann", sha256=sha256).status_code == 200


def test_two_reviewers_begin_with_different_photos(console: Console) -> None:
    for seed in range(900, 912):
        queued(console, seed)
    orders = [
        [row["sha256"] for row in console.client.get(
            "/ml-pipeline/api/review", params={"name": "dogs"}, headers=console.as_user(who)
        ).json()["photos"]]
        for who in ("ann", "bob")
    ]  # fmt: skip
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def correct(console: Console, path: str = "correct", headers: Any = None, **body: Any) -> Any:
    query = {"name": "dogs", **({"version": VERSION} if path == "rename" else {})}
    return console.client.post(
        f"/ml-pipeline/api/data/{path}", params=query, json=body, headers=headers or {**console.admin, **ORIGIN}
    )  # fmt: skip


def test_a_corrected_photo_shows_its_correction(console: Console) -> None:
    assert correct(console, photos=[SUSPECT], action="label", label="cat").json() == {"corrected": 1}
    rows = console.get("data/photos", name="dogs", version=VERSION).json()["photos"]
    shown = {row["sha256"]: row["correction"] for row in rows}
    assert shown[SUSPECT] == {"action": "label", "label": "cat", "who": "admin"}
    assert [shown[f"{number:064x}"] for number in (0, 2, 3)] == [None] * 3


def test_a_class_is_renamed_and_merged(console: Console) -> None:
    assert correct(console, "rename", label="cat", to="lion").json() == {"corrected": 2}
    assert {entry.label for entry in log(console).newest().values()} == {"lion"}
    # Merged: all photos of the other class, and those that are called so by now.
    assert correct(console, "rename", label="lion", to=EVIL).json() == {"corrected": 2}
    assert {entry.label for entry in log(console).newest().values()} == {EVIL}
    assert len(log(console).entries) == 4


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("correct", {"photos": [SUSPECT], "action": "label"}, "a label belongs to the action label"),
        ("correct", {"photos": [SUSPECT], "action": "label", "label": "a\nb"}, "printable"),
        ("correct", {"photos": ["x"], "action": "keep"}, "string_pattern_mismatch"),
        ("correct", {"photos": [], "action": "keep"}, "too_short"),
        ("rename", {"label": "nothing", "to": "lion"}, "no such photo"),
        ("rename", {"label": "cat", "to": "cat"}, "called 'cat' already"),
        ("rename", {"label": "cat", "to": "\x07"}, "printable"),
    ],
    ids=["no label", "line break", "no hash", "none", "no class", "same name", "bell"],
)
def test_a_correction_that_cannot_be_is_refused(
    console: Console, path: str, body: dict[str, Any], said: str
) -> None:
    refused = correct(console, path, **body)
    assert refused.status_code == 422
    assert said in refused.text
    assert not log(console).entries


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("data/correct", {"photos": [SUSPECT], "action": "keep"}),
        ("data/rename", {"label": "cat", "to": "lion"}),
        ("review", {"sha256": SUSPECT, "action": "keep"}),
    ],
    ids=["correct", "rename", "review"],
)
def test_a_viewer_corrects_nothing(console: Console, path: str, body: dict[str, Any]) -> None:
    refused = console.client.post(
        f"/ml-pipeline/api/{path}", params={"name": "dogs", "version": VERSION}, json=body,
        headers={**console.viewer, **ORIGIN},
    )  # fmt: skip
    assert refused.status_code == 403
    assert not log(console).entries
