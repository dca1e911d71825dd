"""Debian's chromium, driven by Playwright: for tests of pages as a person sees them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; skips the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("needs chromium: apt-get install chromium")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@contextmanager
def opened(browser: Any, headers: dict[str, str], **options: Any) -> Iterator[Any]:
    """A page that must not report an error.

    What is gone is answered with 404: the browser reports it, and the page says in words what is missing.
    """
    page = browser.new_page(extra_http_headers=headers, **options)
    page.set_default_timeout(60_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
    page.on(
        "console",
        lambda line: (
            problems.append(f"{line.text} {line.location.get('url')}")
            if line.type == "error" and "404" not in line.text
            else None
        ),
    )
    yield page
    assert problems == []
    page.close()


def visit(page: Any, address: str, name: str) -> None:
    """Open a page of the console, and wait until all its parts are there."""
    page.goto(f"{address}#/{name}")
    page.reload()
    drawn(page)


def drawn(page: Any) -> None:
    """Wait until a page and all its parts are there."""
    page.wait_for_selector("main h1")
    # Not wait_for_function: it compiles its text in the page, which the page's policy forbids.
    loading = page.get_by_text("Loading", exact=True)
    while loading.count():
        loading.first.wait_for(state="detached")


def serious(page: Any) -> list[str]:
    """Return the findings of axe-core that keep people out; skip where axe-playwright-python is missing."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{row['id']}: {node['html'][:160]}"
        for row in found
        if row["impact"] in ("serious", "critical")
        for node in row["nodes"]
    ]
