"""Messages about looks."""

from __future__ import annotations

from typing import Any

import pytest

from ml_pipeline.dag import watch
from ml_pipeline.dag.notifier import text


@pytest.mark.parametrize("verdict", ["alarm", "proposal"])
def test_a_look_that_found_a_change_is_told_with_its_page(verdict: str) -> None:
    found: Any = {
        "verdict": verdict,
        "endpoint_name": "dogs",
        "reason": "drift",
        "page_uri": "s3://b/page.html",
    }
    told = watch.message(found)
    assert told
    subject, message = text(told[0], {"dag_run": {"dag_id": "watch", "run_id": "r"}, "reason": told[1]})
    assert subject == f"ml-pipeline {verdict} at dogs: watch"
    assert "drift\npage: s3://b/page.html" in message
    assert watch.message({**found, "verdict": "quiet"}) is None
