"""The pages in a real browser: a hostile class name runs nothing, and nothing is wider than a phone."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI

from tests.ml_pipeline.console.conftest import VERSION, Console, serve

pytestmark = pytest.mark.slow
PAGES = (
    "models", "models/dogs/compare/1/2", "models/dogs/classes/1", "runs", "data", f"data/dogs/{VERSION}",
    f"data/dogs/{VERSION}/mistakes/1", "endpoints", "try",
)  # fmt: skip


@pytest.fixture
def address(site: FastAPI) -> Iterator[str]:
    """Airflow's API and the console on a port of their own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(site, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [free]})
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield f"http://127.0.0.1:{free.getsockname()[1]}/ml-pipeline/"
        server.should_exit = True
        thread.join()


@pytest.fixture
def browser() -> Iterator[Any]:
    """Debian's chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs chromium: apt-get install chromium")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.mark.parametrize("width", [1200, 390])
def test_every_page_is_drawn_and_a_class_name_runs_nothing(
    console: Console, address: str, browser: Any, width: int
) -> None:
    headers = {"Authorization": console.viewer["Authorization"]}
    page = browser.new_page(viewport={"width": width, "height": 844}, extra_http_headers=headers)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
    page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
    for name in PAGES:
        page.goto(f"{address}#/{name}")
        page.reload()
        drawn(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert page.locator("main img[src='x']").count() == 0
    # The second thumbnail of the test data is a script: the browser is told 404, which it reports itself.
    assert [problem for problem in problems if "404" not in problem] == []
    page.close()


def test_photos_have_pictures_and_paths(console: Console, address: str, browser: Any) -> None:
    page = browser.new_page(extra_http_headers={"Authorization": console.viewer["Authorization"]})
    page.goto(f"{address}#/data/dogs/{VERSION}")
    drawn(page)
    second = page.locator(".photos li").nth(1)
    assert second.locator("code").text_content() == "<img src=x onerror=alert(1)>/1.jpg"
    picture = second.locator("img")
    picture.scroll_into_view_if_needed()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    page.close()


@pytest.mark.parametrize(
    ("role", "said"), [("admin", "Started manual__"), ("viewer", "You may not start deploy")]
)
def test_two_clicks_roll_back(console: Console, address: str, browser: Any, role: str, said: str) -> None:
    serve(console, 2)
    page = browser.new_page(extra_http_headers=getattr(console, role))
    page.goto(f"{address}#/models")
    drawn(page)
    page.get_by_role("button", name="Roll back", exact=True).click()
    page.get_by_role("button", name="Roll back to v1?").click()
    page.locator("#said", has_text=said).wait_for()
    if role == "admin":
        runs = page.request.get(f"{address}../api/v2/dags/deploy/dagRuns").json()["dag_runs"]
        wanted = {"dataset_name": "dogs", "version": "1", "endpoint_name": "photos"}
        assert [run["conf"].items() >= wanted.items() for run in runs] == [True]
    page.close()


def drawn(page: Any) -> None:
    """Wait until a page and all its parts are there."""
    page.wait_for_selector("main h1")
    # Not wait_for_function: it compiles its text in the page, which the page's policy forbids.
    loading = page.get_by_text("Loading", exact=True)
    while loading.count():
        loading.first.wait_for(state="detached")
