"""A camera that blurs: watched, proposed, approved, retrained with reviewed photos, rolled out, quiet.

On real Airflow and local_aws, with processes killed (-9) in between.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from PIL import Image, ImageFilter

from benchmarks._shared import shared
from launcher.settings import Secrets
from ml_pipeline.dataset.corrections import Action
from ml_pipeline.watching import reviews, state
from tests.browser import chromium, opened, serious, visit
from tests.e2e.conftest import make_laptop
from tests.e2e.stage import QUICK_TO_NOTICE, Stage, wait_for

DOGS, WEIGHTS = shared("data/stanford-dogs"), shared("weights/mobilenet_v2_imagenet.pth")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not DOGS.is_dir(), reason="needs the photos of ../shared"),
]

BREEDS = sorted(folder.name for folder in DOGS.glob("*"))[::15]
FILES = {breed: sorted((DOGS / breed).glob("*.jpg")) for breed in BREEDS}
TAUGHT, WINDOW = 60, 80
# Breed by breed in turn, so that each window has all of them.
TRAFFIC = [file for files in zip(*(FILES[breed][TAUGHT:] for breed in BREEDS), strict=True) for file in files]
TRAINING = {
    "min_accuracy": 0.0, "margin": 1.0, "trials": 1, "capture_percent": 100, "capture_days": 7,
    "weights": str(WEIGHTS), "architecture": "mobilenet_v2",
}  # fmt: skip
# By chance, one look in four hundred would ring.
WATCH = {"alarms_a_year": 20, "proposals_a_year": 20, "queue_photos": 40}


def photo(number: int, blurred: bool = False) -> bytes:
    """One of the photos that no data set holds."""
    data = TRAFFIC[number].read_bytes()
    if not blurred:
        return data
    stream = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.convert("RGB").filter(ImageFilter.GaussianBlur(4)).save(stream, "JPEG", quality=92)
    return stream.getvalue()


class Watched:
    """An endpoint with traffic, and the looks at it."""

    name = "dogs"

    def __init__(self, stage: Stage, data: Path) -> None:
        self.stage, self.data = stage, data
        self.s3 = stage.laptop.client("s3")
        self.bucket = "ml-pipeline"
        self.classes: dict[str, str] = {}
        self.next = 0

    @property
    def conf(self) -> dict[str, Any]:
        """The params of a training run."""
        return {
            **TRAINING, "data": str(self.data), "dataset_name": self.name, "endpoint_name": self.name,
        }  # fmt: skip

    def send(self, blurred: bool) -> None:
        """Send a window of photos, each another one, and wait until they are captured."""
        runtime = self.stage.laptop.client("sagemaker-runtime")
        for number in range(self.next, self.next + WINDOW):
            body = photo(number, blurred)
            self.classes[hashlib.sha256(body).hexdigest()] = TRAFFIC[number].parent.name
            runtime.invoke_endpoint(
                EndpointName=self.name, ContentType="image/jpeg", Body=body, InferenceId=f"client-{number}"
            )
        self.next += WINDOW
        wait_for(lambda: self.captured() >= len(self.classes), "the captures", 60)

    def captured(self) -> int:
        """Photos that the endpoint has captured, smoke tests left out."""
        found = self.s3.list_objects_v2(Bucket=self.bucket, Prefix="captures/").get("Contents", [])
        bodies = (self.s3.get_object(Bucket=self.bucket, Key=item["Key"])["Body"].read() for item in found)
        return sum(body.count(b'"inferenceId": "client-') for body in bodies)

    def start_look(self) -> str:
        conf = {**WATCH, "endpoint_name": self.name, "data": str(self.data), "conf": TRAINING}
        return self.stage.airflow.trigger("watch", conf)

    def look(self) -> state.Taken:
        return self.after(self.start_look())

    def after(self, run_id: str) -> state.Taken:
        """Wait for the end of a run of watch; the look that it took."""
        assert self.ended("watch", run_id) == "success"
        return state.load(self.s3, self.bucket, self.name)[0].looks[-1]

    def ended(self, dag: str, run_id: str, seconds: float = 300.0) -> str:
        airflow = self.stage.airflow
        return wait_for(
            lambda: (found := airflow.run_state(dag, run_id)) in ("success", "failed") and found,
            f"end of {run_id} of {dag}", seconds,
        )  # fmt: skip

    def runs(self, dag: str) -> list[str]:
        return [
            run["dag_run_id"] for run in self.stage.airflow.call("GET", f"dags/{dag}/dagRuns")["dag_runs"]
        ]

    def task(self, dag: str, run_id: str, task: str) -> str:
        rows = self.stage.airflow.task_instances(dag, run_id)
        return next(str(row["state"]) for row in rows if row["task_id"] == task)

    def answer(self, run_id: str, option: str) -> None:
        """Answer the question of a proposal. Raises AirflowError while there is none."""
        path = f"dags/retraining_proposal/dagRuns/{run_id}/taskInstances/ask/-1/hitlDetails"
        self.stage.airflow.call("PATCH", path, json={"chosen_options": [option], "params_input": {}})

    def cookie(self) -> dict[str, str]:
        """The cookie of a browser after the login."""
        secrets, url = Secrets.load(self.stage.settings.home), self.stage.settings.airflow_url
        assert secrets is not None
        login = {"username": "admin", "password": secrets.admin_password}
        answer = requests.post(f"{url}/auth/token", json=login, timeout=60)
        return {"name": "_token", "value": answer.json()["access_token"], "url": url}

    def looked_at(self) -> list[str]:
        """Photos of all looks, as often as they were looked at."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix="jobs/")
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        bodies = (
            self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read().decode()
            for key in keys
            if key.endswith("/look/photos.jsonl")
        )
        return [json.loads(line)["inference_id"] for body in bodies for line in body.splitlines()]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    laptop = make_laptop(tmp_path_factory.mktemp("watch"))
    laptop.environ.update(QUICK_TO_NOTICE)
    data = laptop.folder / "dogs"
    for breed, files in FILES.items():
        (data / breed).mkdir(parents=True)
        for file in files[:TAUGHT]:
            shutil.copy(file, data / breed)
    try:
        laptop.up()
        yield Watched(Stage(laptop), data)
    finally:
        laptop.launcher("stop")


def test_a_blurred_camera_ends_in_a_model_that_knows_it(watched: Watched) -> None:
    stage = watched.stage
    run_id = stage.airflow.trigger("train_and_deploy", watched.conf)
    assert stage.end(run_id) == "success"
    before = served(watched)

    watched.send(blurred=False)
    first = watched.look()
    assert (first.verdict, first.look.photos) == ("quiet", first.look.photos)
    assert watched.runs("retraining_proposal") == []

    watched.send(blurred=True)
    looking = watched.start_look()
    wait_for(lambda: working(watched), "a look at work", pause=0.02)
    stage.kill("scheduler")
    assert watched.after(looking).verdict == "alarm"
    watched.send(blurred=True)
    second = watched.look()
    assert second.verdict == "proposal", second.reason
    (proposal,) = wait_for(lambda: watched.runs("retraining_proposal"), "a proposal")
    wait_for(lambda: watched.task("retraining_proposal", proposal, "ask") == "awaiting_input", "a question")
    stage.kill("local_aws")

    questions = list(reviews.questions(watched.s3, watched.bucket, watched.name))
    assert len(questions) >= 20
    for question in questions:
        label = watched.classes[question.sha256]
        reviews.answer(watched.s3, watched.bucket, watched.name, question.sha256, Action.LABEL, label, "ann")
    watched.answer(proposal, "Approve")
    assert watched.ended("retraining_proposal", proposal) == "success"
    counts = [stage.airflow.xcom("train_and_deploy", run, "upload")["counts"] for run in (run_id, proposal)]
    assert counts[1] == {**counts[0], "train": counts[0]["train"] + len(questions)}
    assert served(watched) != before

    watched.send(blurred=True)
    last = watched.look()
    assert last.verdict == "quiet", last.reason
    seen = watched.looked_at()
    assert len(seen) == len(set(seen)) == 4 * WINDOW
    assert watched.runs("retraining_proposal") == [proposal]


def test_a_proposal_is_answered_in_the_browser(watched: Watched) -> None:
    run_id = watched.stage.airflow.trigger("retraining_proposal", proposed(watched, retrain="ask"))
    wait_for(lambda: watched.task("retraining_proposal", run_id, "ask") == "awaiting_input", "a question")
    airflow, cookie = watched.stage.settings.airflow_url, watched.cookie()
    with chromium() as browser, opened(browser, {}) as page:
        page.context.add_cookies([cookie])
        page.goto(f"{airflow}/dags/retraining_proposal/runs/{quote(run_id)}/tasks/ask/required_actions")
        page.get_by_text("the camera is blurred").first.wait_for()
        page.get_by_role("button", name="Reject").click()
        assert watched.ended("retraining_proposal", run_id) == "success"
    assert watched.task("retraining_proposal", run_id, "train") == "skipped"
    assert run_id not in watched.runs("train_and_deploy")


def test_the_console_draws_what_the_looks_found(watched: Watched) -> None:
    with chromium() as browser, opened(browser, {}) as page:
        page.context.add_cookies([watched.cookie()])
        visit(page, f"{watched.stage.settings.airflow_url}/ml-pipeline/", f"endpoints/{watched.name}")
        rows = page.get_by_role("region", name="Looks").locator("tbody tr")
        verdicts = ["quiet", "proposal", "alarm", "quiet"]
        assert [rows.nth(at).locator(".badge").inner_text() for at in range(rows.count())] == verdicts
        page.get_by_role("img", name="Accuracy on the traffic").wait_for()
        assert serious(page) == []


def test_auto_asks_no_one_and_ends_as_the_training_does(watched: Watched) -> None:
    conf = proposed(watched, retrain="auto")
    conf["conf"] = {**TRAINING, "budget_usd": 0.0}
    run_id = watched.stage.airflow.trigger("retraining_proposal", conf)
    assert watched.ended("retraining_proposal", run_id) == "failed"
    assert watched.task("retraining_proposal", run_id, "ask") == "success"
    assert watched.stage.airflow.run_state("train_and_deploy", run_id) == "failed"


def proposed(watched: Watched, retrain: str) -> dict[str, Any]:
    return {
        "endpoint_name": watched.name, "dataset_name": watched.name, "look": 2, "reason": "the camera is blurred",
        "data": str(watched.data), "retrain": retrain, "conf": TRAINING,
    }  # fmt: skip


def served(watched: Watched) -> str:
    """The model that answers."""
    runtime = watched.stage.laptop.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint(
        EndpointName=watched.name, ContentType="image/jpeg", Body=photo(1), InferenceId="ml-pipeline-test/e2e"
    )
    return str(json.loads(answer["Body"].read())["model"]["version"])


def working(watched: Watched) -> bool:
    jobs = watched.stage.sagemaker.list_processing_jobs(NameContains="watch-", StatusEquals="InProgress")
    return bool(jobs["ProcessingJobSummaries"])
