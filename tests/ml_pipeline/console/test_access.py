"""Every route refuses who is not logged in, and what comes from another origin."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.api_fastapi.app import get_auth_manager
from fastapi.routing import APIRoute

from ml_pipeline.console import access
from ml_pipeline.console.app import POLICY, create
from tests.ml_pipeline.console.conftest import Console

QUERIES: dict[str, str | int] = {
    "group": "dogs",
    "name": "dogs",
    "version": "1",
    "left": 1,
    "right": 2,
    "run_id": "r",
    "task_id": "t",
    "sha256": "0" * 64,
}
NAMED = {access.SEE.dependency, access.ASK.dependency, access.CORRECT.dependency}


def routes() -> list[tuple[str, str]]:
    return [
        (method, route.path.format(name="console.js"))
        for route in create().routes
        if isinstance(route, APIRoute)
        for method in sorted(route.methods)
    ]


def test_every_route_names_a_permission() -> None:
    found = create().routes
    assert all(isinstance(route, APIRoute) for route in found), "nothing is mounted that has no dependencies"
    for route in found:
        assert isinstance(route, APIRoute)
        calls = {dependency.call for dependency in route.dependant.dependencies}
        assert calls & NAMED, f"{route.path} names no permission"
        assert access.same_origin in calls, f"{route.path} does not check the origin"


@pytest.mark.parametrize(("method", "path"), routes())
def test_no_route_answers_without_a_login(console: Console, method: str, path: str) -> None:
    own = {"Origin": "http://testserver"}
    for headers in (own, {**own, "Authorization": "Bearer nonsense"}, {**own, "Cookie": "_token=nonsense"}):
        answer = console.client.request(method, f"/ml-pipeline{path}", params=QUERIES, headers=headers)
        assert answer.status_code in (401, 403), path


@pytest.mark.parametrize(("method", "path"), routes())
def test_no_route_answers_a_user_without_the_permission(
    console: Console, monkeypatch: pytest.MonkeyPatch, method: str, path: str
) -> None:
    monkeypatch.setattr(type(get_auth_manager()), "is_authorized_dag", lambda *args, **kwargs: False)
    headers = {**console.admin, "Origin": "http://testserver"}
    answer = console.client.request(method, f"/ml-pipeline{path}", params=QUERIES, headers=headers)
    assert answer.status_code == 403, path


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://testserver:8081", "https://testserver", "null", ""]
)
@pytest.mark.parametrize(("method", "path"), [route for route in routes() if route[0] not in ("GET", "HEAD")])
def test_unsafe_requests_of_other_origins_are_refused(
    console: Console, method: str, path: str, origin: str
) -> None:
    token = console.admin["Authorization"].removeprefix("Bearer ")
    for headers in ({"Cookie": f"_token={token}"}, console.admin):
        answer = console.client.request(
            method, f"/ml-pipeline{path}", params=QUERIES, headers={**headers, "Origin": origin}
        )
        assert answer.status_code == 403


def test_an_unsafe_request_without_an_origin_needs_a_bearer_token(console: Console) -> None:
    token = console.admin["Authorization"].removeprefix("Bearer ")
    path = "/ml-pipeline/api/endpoints/ask"
    by_cookie = console.client.post(
        path, params={"name": "e"}, content=b"x", headers={"Cookie": f"_token={token}"}
    )
    assert by_cookie.status_code == 403
    by_token = console.client.post(
        path, params={"name": "e"}, content=b"x",
        headers={**console.admin, "Content-Type": "application/octet-stream"},
    )  # fmt: skip
    assert by_token.status_code == 404  # let in; there is no such endpoint


def test_behind_a_proxy_the_configured_origin_counts(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example/team/")
    for origin, status, said in (
        ("https://airflow.example", 404, "there is no endpoint e"),
        (
            "http://testserver",
            403,
            "requests from 'http://testserver' are refused: open https://airflow.example/team/",
        ),
    ):
        headers = {**console.admin, "Origin": origin, "Content-Type": "application/octet-stream"}
        answer = console.client.post(
            "/ml-pipeline/api/endpoints/ask", params={"name": "e"}, content=b"x", headers=headers
        )
        assert (answer.status_code, answer.json()["detail"]) == (status, said)


def test_without_a_configured_origin_the_address_of_the_request_is_named(console: Console) -> None:
    headers = {**console.admin, "Origin": "http://evil.example"}
    answer = console.client.post("/ml-pipeline/api/review", headers=headers)
    assert answer.json()["detail"].endswith("are refused: open http://testserver")


def test_every_answer_carries_the_policy_and_is_never_sniffed(console: Console) -> None:
    for path in ("", "static/console.js", "api/models", "api/data/version"):
        answer = console.client.get(f"/ml-pipeline/{path}", headers=console.viewer)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == POLICY
    assert "unsafe-inline" not in POLICY


def test_a_person_without_a_login_is_sent_to_the_login_page(console: Console) -> None:
    answer = console.client.get("/ml-pipeline/", headers={"Accept": "text/html"}, follow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/auth/login?next=/ml-pipeline/"


def test_only_the_page_itself_is_html(console: Console) -> None:
    kinds: set[Any] = set()
    for method, path in routes():
        answer = console.client.request(
            method,
            f"/ml-pipeline{path}",
            params=QUERIES,
            headers={**console.admin, "Origin": "http://testserver"},
        )
        if answer.headers["content-type"].startswith("text/html"):
            kinds.add(path)
    assert kinds == {"/"}
