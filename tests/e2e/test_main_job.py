"""The README's commands on real Airflow and local_aws: photos in, an answering endpoint out."""

import json
import os
import re
import signal
import sys
import time
from urllib.parse import quote

import psutil
import pytest
import requests

from launcher.settings import REPOSITORY, Secrets, Settings
from tests.browser import chromium, opened, serious, visit

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

STARTING_RUNS = (REPOSITORY / "docs/starting-runs.md").read_text()


@pytest.fixture(scope="module")
def first_run(laptop):
    """`make run`, once for all tests of this module."""
    done = laptop.sh("make run")
    assert done.returncode == 0, done.stdout
    return done


def test_make_run_ends_with_an_endpoint_that_agrees(laptop, first_run):
    results = laptop.last_run()["results"]
    assert results["smoke_test"]["photos"] >= 20
    assert results["smoke_test"]["agreed"] == results["smoke_test"]["photos"]
    drawn = {
        str(photo.relative_to(laptop.folder / "photos")) for photo in (laptop.folder / "photos").glob("*/*")
    }
    assert {row["photo"] for row in results["smoke_test"]["predictions"]} <= drawn
    for part in (
        "Data set",
        "Trials of",
        "Best hyperparameters",
        "Test accuracy",
        "Endpoint",
        "On AWS",
        "make stop",
    ):
        assert part in first_run.stdout


def test_every_task_was_shown(first_run):
    for task in ("upload", "embed", "tune", "train", "evaluate", "gate", "register", "deploy", "smoke_test"):
        assert re.search(rf"^{task} +done", first_run.stdout, re.MULTILINE), task


def test_a_second_run_after_kill_9_of_local_aws_loses_nothing(laptop, first_run):
    before = laptop.last_run()["results"]
    state = json.loads((laptop.home / "supervisor.json").read_text())
    os.kill(state["children"]["local_aws"]["pid"], signal.SIGKILL)
    done = laptop.sh("make run DATA=photos")
    assert done.returncode == 0, done.stdout
    after = laptop.last_run()["results"]
    assert after["upload"]["version"] == before["upload"]["version"]
    assert after["upload"]["uploaded_bytes"] == 0
    assert after["embed"]["embedded"] == 0
    assert after["deploy"]["endpoint_name"] == before["deploy"]["endpoint_name"]


def test_predict_and_status(laptop, first_run):
    done = laptop.sh("make predict IMAGE=photo.jpg")
    assert done.returncode == 0, done.stdout
    assert "%" in done.stdout
    status = laptop.sh("make status")
    assert status.returncode == 0, status.stdout
    for name in ("api-server", "scheduler", "dag-processor", "triggerer", "local_aws"):
        assert name in status.stdout
    refused = laptop.sh(f"make predict IMAGE={laptop.folder}/nothing.jpg")
    assert "is not a file" in refused.stdout


def test_the_console_shows_the_run_in_a_browser(laptop, first_run):
    """Each page on the data of this run, without an error; from its end to why a photo is wrong in two clicks."""
    settings = Settings.from_environ(laptop.environ)
    login = {"username": "admin", "password": Secrets.load(settings.home).admin_password}
    answer = requests.post(f"{settings.airflow_url}/auth/token", json=login, timeout=60)
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    run = json.loads((laptop.home / "last_run.json").read_text())
    name, version = run["results"]["upload"]["name"], run["results"]["upload"]["version"]
    address, data = f"{settings.airflow_url}/ml-pipeline/", f"data/{name}/{version}"
    endpoint = run["results"]["deploy"]["endpoint_name"]
    shown = {
        "models": "answers on",
        f"models/{name}/classes/1": "Commonest mix-ups",
        "runs": "done",
        f"runs/{quote(run['run_id'])}": "Learning curves",
        "data": version,
        data: "Suspected labels",
        f"{data}/mistakes/1": "mistakes only",
        f"endpoints/{endpoint}": "an hour",
        f"review/{name}": "Review",
        f"try/{endpoint}": "Drop a photo here",
    }
    with chromium() as browser, opened(browser, headers) as page:
        in_airflows_frame(browser, settings.airflow_url, headers["Authorization"].split()[1])
        for part, text in shown.items():
            visit(page, address, part)
            page.locator("main", has_text=text).wait_for()
            # Only a look is missing: no one called watch yet.
            said = page.locator(".missing").all_inner_texts()
            assert [line for line in said if "looked at the traffic" not in line] == [], part
            assert serious(page) == [], part
        page.set_input_files("input[type=file]", laptop.folder / "photo.jpg")
        page.get_by_text("Answered in").wait_for()
        page.get_by_alt_text("heat map of the answer").wait_for()
        visit(page, address, "models")
        page.get_by_role("link", name="See its mistakes").click()
        page.locator("main", has_text="mistakes only").wait_for()
        if page.locator(".photos li").count():
            page.get_by_role("button", name="open the photo").first.click()
            page.get_by_text("The model answered").wait_for()


def in_airflows_frame(browser, airflow_url, token):
    """The console where Airflow shows it: the reports of a run open there, though the frame forbids windows."""
    with opened(browser, {}) as page:
        page.context.add_cookies([{"name": "_token", "value": token, "url": airflow_url}])
        page.goto(f"{airflow_url}/plugin/ml-pipeline")
        frame = page.frame_locator("iframe")
        for name, heading in (("Data report", "data report"), ("Evaluation report", "")):
            frame.get_by_role("link", name="Runs", exact=True).click()
            frame.locator("tbody a").first.click()
            frame.get_by_role("link", name=name).click()
            frame.locator("header h1", has_text=heading).wait_for()
            page.evaluate("history.back()")  # go_back waits for a load of the outer page, which stays


@pytest.mark.parametrize("language", ["sh", "python"])
def test_a_run_starts_by_rest_as_documented(laptop, first_run, language):
    """The page's own lines, with a DAG that takes seconds and no params."""
    block = re.search(rf"```{language}\n(.*?)```", STARTING_RUNS, re.DOTALL)[1]
    block = block.replace("/dags/train_and_deploy/", "/dags/janitor/").replace(
        "time.sleep(10)", "time.sleep(1)"
    )
    block = re.sub(r'("?conf"?(?::| =) )\{[^}]*\}', r"\1{}", block)
    password = json.loads((laptop.home / "secrets.json").read_text())["admin_password"]
    environ = {
        "AIRFLOW_URL": f"http://127.0.0.1:{laptop.environ['AIRFLOW_PORT']}",
        "AIRFLOW_PASSWORD": password,
    }
    command = block if language == "sh" else f"{sys.executable} - <<'END'\n{block}\nEND"
    done = laptop.sh(command, **environ)
    assert done.returncode == 0, done.stdout
    assert ("dag_run_id" if language == "sh" else "success") in done.stdout, done.stdout


def test_stop_leaves_no_process_and_clean_no_file(laptop, first_run):
    state = json.loads((laptop.home / "supervisor.json").read_text())
    sessions = {child["pid"] for child in state["children"].values() if child["pid"]}
    assert laptop.sh("make stop").returncode == 0
    deadline = time.monotonic() + 10
    while left := _of_sessions(sessions):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    assert laptop.sh("make clean").returncode == 0
    assert not laptop.home.exists()


def _of_sessions(sessions):
    found = []
    for process in psutil.process_iter(["cmdline"]):
        try:
            if os.getsid(process.pid) in sessions and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.info)
        except (ProcessLookupError, psutil.Error):
            continue
    return found


@pytest.mark.parametrize(
    ("command", "environ"),
    [
        ("make test", {"PYTEST_ADDOPTS": "--collect-only -q -p no:cacheprovider"}),
        ("make bench ONLY=dag-parse ARGS=--help", {}),
        pytest.param('make bench ONLY=dag-parse ARGS="--repeats 1"', {}, marks=pytest.mark.slow),
        ("make help", {}),
    ],
)
def test_developer_commands_work(laptop, command, environ):
    done = laptop.sh(command, **environ)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_make_rolls_back_and_deploys_a_version(laptop, first_run):
    """Train a second version, go back to the first with `make rollback`, forward again with `make deploy`."""
    runtime = laptop.client("sagemaker-runtime")
    endpoint = laptop.last_run()["results"]["deploy"]["endpoint_name"]
    photo = (laptop.folder / "photo.jpg").read_bytes()

    def served() -> str:
        answer = runtime.invoke_endpoint(EndpointName=endpoint, ContentType="application/x-image", Body=photo)
        return str(json.loads(answer["Body"].read())["model"]["version"])

    first = served()
    conf = {"min_accuracy": 0.0, "margin": 1.0, "hyperparameters": {"epochs": 3}}
    assert laptop.sh("make run", CONF=json.dumps(conf)).returncode == 0
    second = served()
    assert second != first
    back = laptop.sh("make rollback", CONF="")
    assert back.returncode == 0, back.stdout
    assert served() == first
    forward = laptop.sh("make deploy VERSION=2", CONF="")
    assert forward.returncode == 0, forward.stdout
    assert served() == second
