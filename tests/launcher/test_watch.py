"""A run is watched to its end whatever happens to Airflow's answers, and leaves what `make predict` needs."""

import io
import json

import pytest
from rich.console import Console

from launcher import last_run, run
from launcher.airflow_api import AirflowClient, AirflowError
from tests.web_server import sends, web_server

TASKS = f"/api/v2/dags/{run.DAG_ID}/dagRuns/r/taskInstances?limit=100"
RUN = f"/api/v2/dags/{run.DAG_ID}/dagRuns/r"


def in_turn(*answers):
    """Return each answer once, then the last one again and again."""
    left = list(answers)

    def answer(request):
        (left.pop(0) if len(left) > 1 else left[0])(request)

    return answer


def says(**body):
    return sends(json.dumps(body).encode())


def logs_in(request):
    request.rfile.read(int(request.headers["Content-Length"]))
    says(access_token="t")(request)


def breaks_off(request):
    """An answer whose sender dies in the middle of a chunk."""
    request.send_response(200)
    request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()
    request.wfile.write(b"ff\r\n{")


@pytest.fixture
def watch(monkeypatch):
    """Watches a run of an Airflow with these answers."""
    monkeypatch.setattr(run, "POLL_SECONDS", 0.01)

    def start(tasks, state):
        with web_server({"/auth/token": logs_in, TASKS: tasks, RUN: state}) as url:
            return run.watch(AirflowClient(url, "admin", "x"), "r", Console(file=io.StringIO()))

    return start


def test_airflow_that_stumbles_does_not_end_the_watch(watch):
    tasks = in_turn(sends(b"unwell", 503), breaks_off, sends(b"<html>"), says(task_instances=[]))
    state = in_turn(sends(b"locked", 500), says(state="running"), breaks_off, says(state="success"))
    assert watch(tasks, state) == "success"


@pytest.mark.parametrize("answer", [sends(b"unwell", 503), breaks_off])
def test_airflow_that_stays_unwell_is_given_up(watch, monkeypatch, answer):
    monkeypatch.setattr(run, "START_DEADLINE_SECONDS", 0.05)
    with pytest.raises(run.RunError, match=r"stopped answering.*make status"):
        watch(answer, says(state="running"))


def test_a_refusal_is_told_at_once(watch):
    with pytest.raises(AirflowError, match="no such run"):
        watch(sends(b'{"detail": "no such run"}', 404), says(state="running"))


def test_a_run_that_deployed_nothing_leaves_the_earlier_endpoint_known(tmp_path):
    assert last_run.endpoint_name(tmp_path) is None
    last_run.save(tmp_path, "first", {"deploy": None})
    assert last_run.endpoint_name(tmp_path) is None
    last_run.save(tmp_path, "second", {"deploy": {"endpoint_name": "dogs-live"}})
    last_run.save(tmp_path, "third", {"gate": {"passed": False}})
    assert last_run.endpoint_name(tmp_path) == "dogs-live"
    assert json.loads((tmp_path / last_run.FILE).read_text())["run_id"] == "third"
