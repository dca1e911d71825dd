"""Messages about a run."""

from __future__ import annotations

from ml_pipeline.dag.notifier import text


def test_a_message_says_what_where_and_why() -> None:
    context = {"dag_run": {"dag_id": "d", "run_id": "r"}, "ti": {"task_id": "t", "log_url": "http://x"}}
    subject, message = text("failed", {**context, "exception": ValueError("no photos")})
    assert subject == "ml-pipeline failed: d"
    assert message == "d/r/t\nno photos\nlog: http://x"
