"""The pages in a real browser: as people use them, on any screen, with the keyboard alone, and under attack."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI

from ml_pipeline.dataset import corrections
from tests.browser import chromium, drawn, opened, serious, visit
from tests.ml_pipeline.console.conftest import BUCKET, EVIL, VERSION, Console, serve
from tests.ml_pipeline.console.test_foreign import captured
from tests.ml_pipeline.console.test_reviewing import queued, suspected

pytestmark = pytest.mark.slow
PAGES = (
    "models", "models/dogs/compare/1/2", "models/dogs/classes/1", "runs", "data", f"data/dogs/{VERSION}",
    f"data/dogs/{VERSION}/mistakes/1", "endpoints", "endpoints/photos", "review", "try",
)  # fmt: skip
MAIN_PAGES = ("models", f"data/dogs/{VERSION}/mistakes/1", "review")


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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's chromium, once for all tests of this module."""
    with chromium() as started:
        yield started


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 1200), ("dark", 390)], ids=["light desktop", "dark phone"]
)
def test_every_page_is_drawn_readably_and_a_class_name_runs_nothing(
    console: Console, address: str, browser: Any, scheme: str, width: int
) -> None:
    serve(console, 2)
    queued(console, 900)
    with opened(
        browser, console.viewer, viewport={"width": width, "height": 844}, color_scheme=scheme
    ) as page:
        for name in PAGES:
            visit(page, address, name)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
            assert page.locator("main img[src='x']").count() == 0
            assert serious(page) == [], name


@pytest.mark.parametrize(("scheme", "width"), [("dark", 1200), ("light", 390)])
def test_the_main_pages_in_the_other_two_looks(
    console: Console, address: str, browser: Any, scheme: str, width: int
) -> None:
    serve(console, 2)
    with opened(
        browser, console.viewer, viewport={"width": width, "height": 844}, color_scheme=scheme
    ) as page:
        for name in MAIN_PAGES:
            visit(page, address, name)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
            assert serious(page) == [], name


def test_photos_have_pictures_and_paths(console: Console, address: str, browser: Any) -> None:
    with opened(browser, console.viewer) as page:
        visit(page, address, f"data/dogs/{VERSION}")
        second = page.locator(".photos li").nth(1)
        assert second.locator("code").text_content() == f"{EVIL}/1.jpg"
        picture = second.locator("img")
        picture.scroll_into_view_if_needed()
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


@pytest.mark.parametrize("by", ["mouse", "keyboard"])
def test_two_clicks_lead_to_why_a_photo_is_wrong(
    console: Console, address: str, browser: Any, by: str
) -> None:
    serve(console, 1)
    with opened(browser, console.admin) as page:
        visit(page, address, "models")
        for name in ("See its mistakes", "open the photo"):
            target = page.get_by_role("link" if "mistakes" in name else "button", name=name).first
            target.wait_for()
            if by == "mouse":
                target.click()
            else:
                reach(page, target)
                page.keyboard.press("Enter")
            drawn(page)
        dialog = page.get_by_role("dialog")
        assert "taken for cat" in dialog.locator("h2").inner_text()
        assert "The model answered cat with 50 %" in dialog.inner_text()
        assert dialog.locator("code").inner_text() == f"{EVIL}/3.jpg"
        page.keyboard.press("Escape")
        assert dialog.count() == 0


def reach(page: Any, target: Any) -> None:
    """Press Tab until an element has the focus."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if target.evaluate("element => element === document.activeElement"):
            return
    pytest.fail("the element cannot be reached with the Tab key")


@pytest.mark.parametrize("width", [390, 1200])
def test_the_cells_of_the_confusion_matrix_stay_in_their_columns(
    console: Console, address: str, browser: Any, width: int
) -> None:
    with opened(browser, console.viewer, viewport={"width": width, "height": 844}) as page:
        visit(page, address, "models/dogs/classes/1")
        table = page.locator(".confusion table")
        left = "cells => cells.map(cell => Math.round(cell.getBoundingClientRect().left))"
        columns = table.locator("thead th, thead td").evaluate_all(left)
        for row in table.locator("tbody tr").all():
            assert row.locator("th, td").evaluate_all(left) == columns


def test_from_a_confusion_cell_to_its_photos(console: Console, address: str, browser: Any) -> None:
    with opened(browser, console.viewer) as page:
        visit(page, address, "models/dogs/classes/1")
        page.get_by_role("link", name=f"1 photos of {EVIL} taken for cat").click()
        page.locator(".photos li").first.wait_for()
        assert page.locator(".photos li code").all_inner_texts() == [f"{EVIL}/3.jpg"]


def test_a_label_is_corrected_where_the_photo_is(console: Console, address: str, browser: Any) -> None:
    with opened(browser, console.admin) as page:
        visit(page, address, f"data/dogs/{VERSION}")
        page.get_by_role("button", name="open the photo").nth(1).click()
        page.get_by_label("Right class", exact=True).fill("cat")
        page.get_by_role("button", name="Correct the label").click()
        page.get_by_text("the next version of the data set applies it").wait_for()
        page.get_by_role("button", name="Close").click()
        page.locator(".photos li", has_text="admin says cat").wait_for()
    newest = corrections.load(console.store.client("s3"), BUCKET, "dogs").newest()
    assert newest[f"{1:064x}"].label == "cat"


def test_ten_photos_take_ten_keys_and_one_is_taken_back(console: Console, address: str, browser: Any) -> None:
    sent = {queued(console, seed) for seed in range(900, 909)} | {suspected(console)}
    with opened(browser, console.admin) as page:
        visit(page, address, "review/dogs")
        for count in range(10):
            page.get_by_text(f"{count} answered").wait_for()
            page.keyboard.press("1")
        page.get_by_text("You answered 10 photos").wait_for()
        newest = corrections.load(console.store.client("s3"), BUCKET, "dogs").newest()
        assert set(newest) == sent
        assert {entry.label for entry in newest.values()} == {"cat"}
        page.keyboard.press("u")
        page.get_by_text("9 answered").wait_for()
        page.keyboard.press("x")
        page.get_by_text("You answered 10 photos").wait_for()
    actions = corrections.load(console.store.client("s3"), BUCKET, "dogs").newest().values()
    assert sorted(entry.action.value for entry in actions) == ["label"] * 9 + ["reject"]


def test_a_viewer_is_told_that_answers_need_a_permission(
    console: Console, address: str, browser: Any
) -> None:
    queued(console, 900)
    page = browser.new_page(extra_http_headers=console.viewer)
    visit(page, address, "review/dogs")
    page.keyboard.press("1")
    page.get_by_text("You may look, but not change anything").wait_for()
    assert not corrections.load(console.store.client("s3"), BUCKET, "dogs").entries
    page.close()


def test_who_opens_another_address_is_told_the_right_one(
    console: Console, address: str, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://airflow.example")
    queued(console, 900)
    page = browser.new_page(extra_http_headers=console.admin)
    visit(page, address, "review/dogs")
    page.keyboard.press("1")
    page.get_by_text("are refused: open http://airflow.example").wait_for()
    page.close()


def test_captures_out_of_reach_are_said_to_be(console: Console, address: str, browser: Any) -> None:
    captured(console, "someone-elses")
    with opened(browser, console.viewer) as page:
        visit(page, address, "endpoints/kept")
        assert "kept; their files cannot be read: s3://someone-elses/c/kept/v/" in page.inner_text("main")


@pytest.mark.parametrize("state", ["awaiting_input", "deferred"], ids=["Airflow 3.3", "Airflow 3.2"])
def test_a_run_that_waits_for_a_person_says_so(
    console: Console, address: str, browser: Any, state: str
) -> None:
    begin({"train": "deferred", "approve": state})
    with opened(browser, console.viewer) as page:
        visit(page, address, "runs/r1")
        page.get_by_text("Tasks and their logs").click()
        shown = page.get_by_role("region", name="Tasks", exact=True).locator(".badge").all_inner_texts()
        assert shown == ["waits for approval", "waits for AWS"]


def begin(states: dict[str, str]) -> None:
    """Put a run of train_and_deploy with these states of tasks into Airflow's database."""
    from airflow.models import DagRun, TaskInstance
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.sdk import DAG
    from airflow.utils.session import create_session
    from airflow.utils.types import DagRunType

    with DAG("train_and_deploy", schedule=None) as dag, create_session() as session:
        session.add(DagRun(dag.dag_id, "r1", run_type=DagRunType.MANUAL))
        session.flush()
        for name, state in states.items():
            session.add(TaskInstance(EmptyOperator(task_id=name), None, "r1", state))


@pytest.mark.parametrize(
    ("role", "said"), [("admin", "Started manual__"), ("viewer", "You may not start deploy")]
)
def test_two_clicks_roll_back(console: Console, address: str, browser: Any, role: str, said: str) -> None:
    serve(console, 2)
    page = browser.new_page(extra_http_headers=getattr(console, role))
    visit(page, address, "models")
    page.get_by_role("button", name="Roll back to v1", exact=True).click()
    page.get_by_role("button", name="Roll back to v1?").click()
    page.locator(".said", has_text=said).wait_for()
    if role == "admin":
        runs = page.request.get(f"{address}../api/v2/dags/deploy/dagRuns").json()["dag_runs"]
        wanted = {"dataset_name": "dogs", "version": "1", "endpoint_name": "photos"}
        assert [run["conf"].items() >= wanted.items() for run in runs] == [True]
    page.close()
