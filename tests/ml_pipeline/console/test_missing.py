"""Every route of every page, where S3 is out of reach, objects are gone, damaged or of an older release."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from tests.ml_pipeline.console.conftest import BUCKET, VERSION, Console, put
from tests.ml_pipeline.console.test_access import QUERIES, routes

ASKED = {**QUERIES, "sha256": f"{1:064x}", "file": "model.tar.gz"}


def unreachable(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    """No service answers."""

    def refuse(*_: Any) -> Any:
        raise EndpointConnectionError(endpoint_url="https://s3.example")

    monkeypatch.setattr(console.store, "client", refuse)


def rewrite(body: bytes | None) -> Callable[[Console, pytest.MonkeyPatch], None]:
    """Delete every object, or give each another body."""

    def change(console: Console, _: pytest.MonkeyPatch) -> None:
        s3 = console.store.client("s3")
        for entry in s3.list_objects_v2(Bucket=BUCKET)["Contents"]:
            if body is None:
                s3.delete_object(Bucket=BUCKET, Key=entry["Key"])
            else:
                s3.put_object(Bucket=BUCKET, Key=entry["Key"], Body=body)

    return change


STATES = {
    "S3 unreachable": unreachable,
    "objects gone": rewrite(None),
    "objects damaged": rewrite(b"{"),
    "an older release": rewrite(b"{}"),
}


@pytest.mark.parametrize("state", STATES)
def test_every_route_says_what_is_missing(
    console: Console, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    STATES[state](console, monkeypatch)
    allowed = (200, 404, 502) if state == "S3 unreachable" else (200, 404)
    wrong = {}
    for path in [path for method, path in routes() if method == "GET" and "/api/" in path]:
        query = ASKED | ({"version": VERSION} if "/data/" in path else {})
        answer = console.get(path.removeprefix("/api/"), **query)
        explained = answer.status_code == 200 or len(answer.json().get("detail", "")) > 10
        named = answer.status_code != 502 or "https://s3.example" in answer.json()["detail"]
        if answer.status_code not in allowed or not explained or not named:
            wrong[path] = (answer.status_code, answer.text)
    assert not wrong


def rewrite_check(console: Console, name: str, body: bytes) -> None:
    """Give one file of the data check another body."""
    put(console.store.client("s3"), f"datasets/dogs/versions/{VERSION}/check/e1/{name}", body)


@pytest.mark.parametrize(
    "body", [b"{", b"{}", b"[1]", b'{"key": "k"}'], ids=["cut off", "empty", "no document", "a field short"]
)
def test_damaged_findings_hide_no_photo(console: Console, body: bytes) -> None:
    rewrite_check(console, "findings.jsonl", body)
    assert console.get("data/photos", name="dogs", version=VERSION).json()["total"] == 4
    answer = console.get("data/photos", name="dogs", version=VERSION, finding="suspect")
    assert answer.status_code == 404
    assert "findings.jsonl is damaged or of another release" in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [b"{", b"{}", b"[1]", b'{"suspects": null}', b'{"suspects": {"count": 1}}'],
    ids=["cut off", "empty", "no document", "nothing", "a field short"],
)
def test_a_damaged_check_is_named_and_the_rest_is_shown(console: Console, body: bytes) -> None:
    rewrite_check(console, "check.json", body)
    found = console.get("data/version", name="dogs", version=VERSION).json()
    assert (found["photos"], found["check"]) == (4, None)
    assert "check.json is damaged" in found["check_missing"]
