"""`make predict` asks the endpoint in service on a real local_aws, regardless of who started its run."""

import io
import json
import os

import psutil
import pytest
from rich.console import Console

from launcher import last_run, predict, supervisor
from launcher.run import RunError
from launcher.settings import Settings
from tests.local_aws import serving
from tests.local_aws.cloud import Cloud


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    running = Cloud(tmp_path_factory.mktemp("cloud")).start()
    yield running
    running.stop()


@pytest.fixture
def deployed(cloud, monkeypatch):
    """Deploys endpoints that answer every photo with the class given."""
    answer = '"predictions": [{"top": [{"class": version, "probability": 1.0}]}], "version": version,'
    monkeypatch.setattr(serving, "SERVER", serving.SERVER.replace('"version": version,', answer))
    made = []

    def deploy(shown_class):
        made.append(serving.Deployment(cloud))
        assert made[-1].deploy(shown_class)["EndpointStatus"] == "InService"
        return made[-1].endpoint

    yield deploy
    for deployment in made:
        deployment.delete()


@pytest.fixture
def ask(cloud, tmp_path):
    """Runs `make predict` while the services are up; what it printed."""
    create_time = psutil.Process().create_time()
    ports = {"airflow": 1, "local_aws": int(cloud.url.rpartition(":")[2])}
    state = {"pid": os.getpid(), "create_time": create_time, "ports": ports, "children": {}}
    (tmp_path / supervisor.STATE_FILE).write_text(json.dumps(state))
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"photo")

    def predicted():
        said = io.StringIO()
        assert predict.predict(Settings(home=tmp_path), Console(file=said), photo, None) == 0
        return said.getvalue()

    return predicted


def test_the_only_endpoint_is_asked_when_no_run_was_watched_to_its_end(ask, deployed):
    with pytest.raises(RunError, match="no endpoint is in service: make run"):
        ask()
    name = deployed("beagle")
    assert name in (said := ask())
    assert "beagle" in said


def test_of_several_endpoints_the_last_run_s_is_asked_or_all_are_listed(ask, deployed, tmp_path):
    names = sorted([deployed("beagle"), deployed("collie")])
    with pytest.raises(RunError, match=rf"ENDPOINT=<name>: {names[0]}, {names[1]}$"):
        ask()
    last_run.save(tmp_path, "r", {"deploy": {"endpoint_name": names[0]}})
    assert names[0] in ask()


def test_nothing_can_be_asked_when_nothing_is_up(ask, tmp_path):
    (tmp_path / supervisor.STATE_FILE).unlink()
    with pytest.raises(RunError, match="nothing is up"):
        ask()
