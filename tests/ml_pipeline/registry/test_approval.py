"""The text that an approver reads."""

from __future__ import annotations

from typing import Any

from ml_pipeline.registry import approval


def evaluation(accuracy: float, **recalls: float) -> dict[str, Any]:
    return {
        "accuracy": accuracy,
        "accuracy_interval": {"low": accuracy - 0.05, "high": accuracy + 0.05, "level": 0.95},
        "photos": 200,
        "runtime": "onnx-int8",
        "classes": [{"name": name, "recall": recall} for name, recall in recalls.items()],
    }


def test_the_question_holds_what_the_decision_is_about() -> None:
    text = approval.question(
        {"endpoint_name": "dogs", "endpoint_usd_per_hour": 0.115, "replaces": None},
        4, 3, evaluation(0.9, beagle=0.9, poodle=0.5), evaluation(0.8, beagle=0.7, husky=0.5),
        "not shown to be worse", "http://host/report.html", "ana",
    )  # fmt: skip
    assert "Endpoint **dogs**: version **4** replaces version **3**." in text
    assert "New model: 90.0% of 200 test photos right (95% interval 85.0% to 95.0%)" in text
    assert "Champion: 80.0% of 200 test photos right" in text
    assert "`poodle` is new; `husky` is gone; `beagle` finds 90% of its photos instead of 70%" in text
    assert "about $0.115 per hour" in text
    assert "Requested by ana. [Report](http://host/report.html)" in text


def test_a_first_model_replaces_nothing_and_a_scheduled_run_has_no_requester() -> None:
    planned = {
        "endpoint_name": "dogs",
        "endpoint_usd_per_hour": None,
        "replaces": "endpoint dogs serves cats",
    }
    text = approval.question(planned, 1, None, evaluation(0.9), None, "passed", "", None)
    assert "would serve, replacing none" in text
    assert "**It replaces another model:** endpoint dogs serves cats." in text
    assert "no champion" in text
    assert "price unknown" in text
    assert "a schedule or another DAG" in text


def test_a_comment_is_kept_with_the_decision_in_one_line() -> None:
    assert approval.description(True, "ana", "") == "approved in Airflow by ana"
    text = approval.description(False, "ana", "too few\nhuskies " + "x" * 2000)
    assert text.startswith("rejected in Airflow by ana: too few huskies xxx")
    assert len(text) == 1024
