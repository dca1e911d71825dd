"""Output of a run: progress read from logs, the verdict, the summary."""

import io
from datetime import datetime
from typing import Any

import pytest
from rich.console import Console

from launcher.progress import Count, ProgressView, latest_count
from launcher.summary import judge, print_summary
from ml_pipeline.dataset.photos import dataset_name_of


def trial(name, status, value, learning_rate):
    chosen = {"learning_rate": learning_rate}
    return {"name": name, "status": status, "value": value, "seconds": 3, "hyperparameters": chosen}


RESULTS: dict[str, Any] = {
    "plan": {"estimate_usd": 0.31},
    "upload": {
        "name": "dogs", "version": "0123abcd", "classes": 3, "rejected": 1,
        "counts": {"train": {"a": 8, "b": 8, "c": 8}, "valid": 3, "test": 3},
        "uploaded_bytes": 1_500_000, "total_bytes": 3_000_000,
    },
    "tune": {
        "tuning_job_name": "tune-1", "best_training_job": "t-2",
        "objective": {"name": "valid_accuracy", "value": 0.9},
        "best_hyperparameters": {"learning_rate": "0.01"},
        "trials": [
            trial("t-1", "Completed", 0.8, "0.1"),
            trial("t-2", "Completed", 0.9, "0.01"),
            trial("t-3", "Failed", None, "9"),
        ],
    },
    "evaluate": {"accuracy": 0.91, "photos": 120, "runtime": "onnx-int8", "report_url": "http://host/b/report.html"},
    "gate": {"passed": True, "reason": "0.91 is at least 0.5"},
    "deploy": {"endpoint_name": "dogs-live"},
    "smoke_test": {
        "photos": 20, "agreed": 20, "latency_ms_p50": 4.2,
        "predictions": [{"photo": "a/0f.jpg", "label": "a", "top": [["a", 0.9], ["b", 0.1]]}],
    },
}  # fmt: skip


def printed(results, notes=()):
    out = io.StringIO()
    print_summary(Console(file=out, width=200), results, notes)
    return out.getvalue()


def test_the_summary_holds_what_a_user_looks_for():
    text = printed(RESULTS, ("drawn photos",))
    for part in (
        "0123abcd", "train 24", "1 left out", "2 *", "Failed", "0.9", "learning_rate=0.01", "0.9100 on 120 photos",
        "dogs-live", "a 90%, b 10%", "$0.31 as planned", "drawn photos",
    ):  # fmt: skip
        assert part in text


def test_a_run_that_ended_early_prints_what_there_is():
    assert "0123abcd" in printed({"upload": RESULTS["upload"], "tune": None})


@pytest.mark.parametrize(
    ("state", "smoke", "succeeded"),
    [
        ("success", {"photos": 20, "agreed": 20}, True),
        ("success", {"photos": 24, "agreed": 23}, False),
        # Case 03: a small data set has few test photos, and its run may succeed all the same.
        ("success", {"photos": 3, "agreed": 3}, True),
        ("success", {"photos": 0, "agreed": 0}, False),
        ("success", None, False),
        ("failed", {"photos": 20, "agreed": 20}, False),
    ],
)
def test_only_an_endpoint_that_agrees_makes_a_success(state, smoke, succeeded):
    assert judge(state, {"smoke_test": smoke}).succeeded is succeeded


@pytest.mark.parametrize(
    ("results", "words"),
    [
        (
            {"gate": {"passed": False, "reason": "worse than the champion: raise margin"}},
            "the gate refused the model: worse than the champion: raise margin",
        ),
        (
            {"gate": {"passed": True, "reason": ""}, "approve": {"approved": False, "by": "ada"}},
            "ada rejected the model; to deploy it, approve its package",
        ),
        ({"gate": {"passed": True, "reason": ""}}, "skipped; see the grid of the run in Airflow"),
    ],
)
def test_a_run_that_deployed_nothing_says_why_and_what_to_do(results, words):
    outcome = judge("success", results)
    assert not outcome.succeeded
    assert words in outcome.reason


def test_few_test_photos_are_a_note():
    few = {**RESULTS, "smoke_test": {**RESULTS["smoke_test"], "photos": 6, "agreed": 6}}
    assert "only 6 test photos" in printed(few)
    assert "only" not in printed(RESULTS)


def test_names_are_printed_as_they_are():
    # Case 24: rich takes brackets for markup.
    name = "[draft] cup"
    row = {"photo": "[red]0f", "label": name, "top": [[name, 0.9], ["[bold]x[bold]", 0.1]]}
    smoke = {**RESULTS["smoke_test"], "predictions": [row]}
    text = printed({**RESULTS, "smoke_test": smoke, "gate": {"passed": False, "reason": "[bad]"}})
    for part in (name, "[red]0f", "[bold]x[bold]", "[bad]"):
        assert part in text


def test_the_last_progress_line_counts():
    lines = ["progress done=1 total=9 unit=shards", "x", "[job] progress done=4 total=9 unit=shards"]
    assert latest_count(lines) == Count(4, 9, "shards")
    assert latest_count(["done=1 total=2"]) is None


def test_without_a_terminal_each_change_is_one_line():
    out = io.StringIO()
    task = {"task_id": "embed", "state": "running", "start_date": None, "end_date": None}
    with ProgressView(Console(file=out)) as view:
        for done in (1, 1, 5, 5):
            view.update([task], {"embed": Count(done, 10, "shards")})
        view.update([{**task, "state": "success"}], {})
    lines = out.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["running", "running", "done"]
    assert "5 of 10 shards" in lines[1]


@pytest.mark.parametrize(
    ("folder", "name"),
    [("Stanford Dogs", "stanford-dogs"), ("../x_1", "x-1"), ("狗", "photos"), ("-a-", "a")],
)
def test_a_folder_gives_a_name_that_sagemaker_takes(tmp_path, folder, name):
    assert dataset_name_of(str(tmp_path / folder)) == name


def test_the_share_and_the_time_left_come_from_the_plan_and_the_rate() -> None:
    from launcher.progress import Count, total_of

    start = "2026-01-01T00:00:00Z"
    now = datetime.fromisoformat("2026-01-01T00:01:00+00:00").timestamp()
    tasks = [
        {"task_id": "tune", "state": "success", "start_date": start, "end_date": "2026-01-01T00:00:50Z"},
        {"task_id": "train", "state": "deferred", "start_date": "2026-01-01T00:00:50Z", "end_date": None},
        {"task_id": "evaluate", "state": None, "start_date": None, "end_date": None},
    ]
    planned = {"tune": 100.0, "train": 80.0, "evaluate": 20.0}
    found = total_of(tasks, {"train": Count(1, 4, "epochs")}, planned, now)
    assert found.share == pytest.approx(0.6)
    assert found.left == pytest.approx(40.0)  # 120 s of work took 60 s, 80 s are left
    assert total_of(tasks[2:], {}, planned, now).left is None
