"""Content of the pages, and their messages when a part of their data is gone."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from ml_pipeline.console import endpoints
from model_code.data.photos import thumbnail
from model_code.data.records import Photo
from model_code.data.versions import thumbnails
from tests.ml_pipeline.console.conftest import BUCKET, EVIL, SHARD, VERSION, Console, album, put
from tests.model_code.data import looks_files
from tests.model_code.photo_files import photo


def test_versions_with_their_figures_newest_first(console: Console) -> None:
    versions = console.get("models/versions", group="dogs").json()["versions"]
    assert [version["version"] for version in versions] == [2, 1]
    figures = versions[0]["figures"]
    assert figures["accuracy"] == 0.75
    assert figures["interval"] == {"low": pytest.approx(0.65), "high": pytest.approx(0.8)}
    assert figures["latency_ms"] == 3.2


def test_a_version_whose_evaluation_is_gone_is_still_listed(console: Console) -> None:
    console.store.client("s3").delete_object(Bucket=BUCKET, Key="jobs/e2/evaluation.json")
    newest, older = console.get("models/versions", group="dogs").json()["versions"]
    assert newest["figures"] is None
    assert "is gone" in newest["missing"]
    assert older["figures"]["accuracy"] == 0.5


def test_an_evaluation_of_another_release_is_named(console: Console) -> None:
    console.store.client("s3").put_object(
        Bucket=BUCKET, Key="jobs/e2/evaluation.json", Body=b'{"accuracy": 0.7}'
    )
    newest = console.get("models/versions", group="dogs").json()["versions"][0]
    assert "of another release" in newest["missing"]


def test_two_versions_compared(console: Console) -> None:
    found = console.get("models/compare", group="dogs", left=1, right=2).json()
    assert found["changed"] == [{"name": EVIL, "before": 0.5, "after": 0.75, "photos": 2}]
    assert [(row["before"], row["after"]) for row in found["flipped"]] == [("cat", EVIL)]
    console.store.client("s3").delete_object(Bucket=BUCKET, Key="jobs/e1/predictions.jsonl")
    console.store._tables.clear()
    found = console.get("models/compare", group="dogs", left=1, right=2).json()
    assert found["changed"]
    assert "is gone" in found["flips_missing"]


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("models/versions", {"group": "cats"}),
        ("models/compare", {"group": "dogs", "left": 1, "right": 9}),
        ("data/versions", {"name": "cats"}),
        ("data/version", {"name": "dogs", "version": "0" * 16}),
        ("data/photos", {"name": "dogs", "version": VERSION, "model": 9}),
        ("endpoints/one", {"name": "none"}),
        ("runs/one", {"run_id": "none"}),
        ("runs/trials", {"run_id": "none"}),
        ("runs/log", {"run_id": "none", "task_id": "train"}),
    ],
)
def test_what_is_not_there_is_named(console: Console, path: str, query: dict[str, Any]) -> None:
    answer = console.get(path, **query)
    assert answer.status_code == 404
    assert len(answer.json()["detail"]) > 10


def test_a_version_with_its_findings(console: Console) -> None:
    found = console.get("data/version", name="dogs", version=VERSION).json()
    assert found["photos"] == 4
    assert found["rejects"] == [{"path": EVIL, "reason": "empty file"}]
    assert found["check"]["suspects"]["count"] == 1
    assert "/check/e1/data_report.html?response-content-type=text%2Fhtml" in found["report_url"]


def test_an_unchecked_version_shows_the_rest(console: Console) -> None:
    for key in ("check.json", "findings.jsonl"):
        console.store.client("s3").delete_object(
            Bucket=BUCKET, Key=f"datasets/dogs/versions/{VERSION}/check/e1/{key}"
        )
    found = console.get("data/version", name="dogs", version=VERSION).json()
    assert found["check"] is None
    assert "not checked yet" in found["check_missing"]
    assert found["photos"] == 4
    assert console.get("data/photos", name="dogs", version=VERSION).json()["total"] == 4


@pytest.mark.parametrize(
    ("query", "keys"),
    [
        ({}, [0, 1, 2, 3]),
        ({"label": "cat"}, [0, 2]),
        ({"split": "test"}, [2, 3]),
        ({"finding": "suspect"}, [1]),
        ({"finding": "blurred"}, []),
        ({"mistakes": True, "model": 1}, [3]),
        ({"label": EVIL, "prediction": "cat", "model": 1}, [3]),
        ({"mistakes": True, "model": 2}, []),
        ({"offset": 3}, [3]),
    ],
)
def test_photos_by_class_split_finding_and_mistake(
    console: Console, query: dict[str, Any], keys: list[int]
) -> None:
    found = console.get("data/photos", name="dogs", version=VERSION, **query).json()
    assert [int(photo["key"], 16) for photo in found["photos"]] == keys
    assert all(photo["path"].startswith(EVIL) for photo in found["photos"])


@pytest.mark.parametrize(
    "body", [None, b"no gzip", gzip.compress(b"{}\n[")], ids=["none", "no gzip", "no JSON"]
)
def test_without_the_findings_of_the_look_photos_have_no_path(console: Console, body: bytes | None) -> None:
    place = {"Bucket": BUCKET, "Key": f"datasets/dogs/versions/{VERSION}/looks.jsonl.gz"}
    s3 = console.store.client("s3")
    if body is None:
        s3.delete_object(**place)
    else:
        s3.put_object(**place, Body=body)
    found = console.get("data/photos", name="dogs", version=VERSION).json()["photos"]
    assert [photo["path"] for photo in found] == [""] * 4


def test_a_path_that_is_no_utf8_is_shown(console: Console) -> None:
    path = "cat/caf\udce9.jpg"
    found = {path: ("1:2:3", Photo(path, "cat", f"{0:064x}", None, 9, "jpg"))}
    console.store.client("s3").put_object(
        Bucket=BUCKET,
        Key=f"datasets/dogs/versions/{VERSION}/looks.jsonl.gz",
        Body=looks_files.to_bytes(found),
    )
    first = console.get("data/photos", name="dogs", version=VERSION).json()["photos"][0]
    assert first["path"] == "cat/caf?.jpg"


def test_a_thumbnail_is_a_jpeg_or_nothing(console: Console) -> None:
    good = pictured(console, 1)
    assert good.headers["content-type"] == "image/jpeg"
    assert good.content == thumbnail(photo(1), 192)
    assert pictured(console, 2).status_code == 404  # a script
    assert pictured(console, 3).status_code == 404
    shards = {
        row["shard"] for row in console.get("data/photos", name="dogs", version=VERSION).json()["photos"]
    }
    assert shards == {SHARD}


def pictured(console: Console, number: int, shard: str | None = SHARD) -> Any:
    wanted = {"name": "dogs", "sha256": f"{number:064x}", "shard": shard}
    return console.get("data/thumbnail", **{name: value for name, value in wanted.items() if value})


def test_a_thumbnail_takes_its_range_and_the_index_once(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thumbnails, "TAIL_BYTES", 200)  # does not hold the index
    body = album({number: thumbnail(photo(number), 192) for number in range(100)})
    put(console.store.client("s3"), f"datasets/dogs/thumbnails/{SHARD}.zip", body)
    spans: list[str] = []
    part = console.store.part
    monkeypatch.setattr(
        console.store, "part", lambda uri, span, tag="": spans.append(span) or part(uri, span, tag)
    )
    for number in (7, 99, 0):
        assert pictured(console, number).content == thumbnail(photo(number), 192)
    assert [span.startswith("-") for span in spans] == [True, True, False, False, False]
    assert sum(int(stop) - int(start) + 1 for start, stop in (span.split("-") for span in spans[2:])) < 10_000


@pytest.mark.parametrize("body", [None, b"", b"no ZIP" * 100, b"PK\5\6" + bytes(18)])
def test_a_thumbnail_that_changed_is_read_again_and_a_damaged_one_is_absent(
    console: Console, body: bytes | None
) -> None:
    s3, key = console.store.client("s3"), f"datasets/dogs/thumbnails/{SHARD}.zip"
    assert pictured(console, 1).status_code == 200
    put(s3, key, album({0: b"forgotten meanwhile", 1: thumbnail(photo(5), 192)}))
    pictured(console, 1)
    assert pictured(console, 1).content == thumbnail(photo(5), 192)
    if body is None:
        s3.delete_object(Bucket=BUCKET, Key=key)
    else:
        put(s3, key, body)
    for _ in range(2):
        assert pictured(console, 1).status_code == 404


@pytest.mark.parametrize("shard", [None, SHARD, "0" * 64])
def test_a_thumbnail_of_an_earlier_release_is_an_object_of_its_own(
    console: Console, shard: str | None
) -> None:
    put(console.store.client("s3"), f"datasets/dogs/thumbnails/{3:064x}.jpg", thumbnail(photo(3), 192))
    assert pictured(console, 3, shard).content == thumbnail(photo(3), 192)


def test_a_page_knows_whether_there_are_thumbnails(console: Console) -> None:
    assert console.get("data/photos", name="dogs", version=VERSION).json()["thumbnails"] is True
    console.store.client("s3").delete_object(Bucket=BUCKET, Key=f"datasets/dogs/thumbnails/{SHARD}.zip")
    console.store._brief.clear()
    assert console.get("data/photos", name="dogs", version=VERSION).json()["thumbnails"] is False


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("data/version", {"name": "../../etc", "version": VERSION}),
        ("data/version", {"name": "dogs", "version": "../x"}),
        ("data/thumbnail", {"name": "dogs", "sha256": "../../secret"}),
        ("data/thumbnail", {"name": "dogs", "sha256": SHARD, "shard": "../x"}),
        ("data/photos", {"name": "dogs", "version": VERSION, "offset": -1}),
        ("endpoints/one", {"name": "e", "hours": 0}),
    ],
)
def test_names_that_are_no_names_are_refused(console: Console, path: str, query: dict[str, Any]) -> None:
    assert console.get(path, **query).status_code == 422


def test_aws_out_of_reach_is_said_in_one_line(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise EndpointConnectionError(endpoint_url="https://s3.example")

    monkeypatch.setattr(console.store, "client", refuse)
    for path, query in (("models", {}), ("data/versions", {"name": "dogs"}), ("endpoints", {})):
        answer = console.get(path, **query)
        assert answer.status_code == 502
        assert "https://s3.example" in answer.json()["detail"]


def test_a_photo_is_bounded_before_it_is_sent(console: Console) -> None:
    headers = {**console.admin, "Content-Type": "application/octet-stream"}
    for body in (b"", b"x" * (6 * 2**20 + 1)):
        answer = console.client.post(
            "/ml-pipeline/api/endpoints/ask", params={"name": "e"}, content=body, headers=headers
        )
        assert answer.status_code in (413, 422)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ('{"error": {"reason": "photo_not_a_photo", "message": "not a photo"}}', "not a photo"),
        ("plain text of another server", "plain text of another server"),
        ("[1]", "[1]"),
    ],
)
def test_a_refused_photo_is_explained_in_words(answer: str, words: str) -> None:
    assert endpoints.reason(answer) == words
