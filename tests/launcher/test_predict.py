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
        assert predict.predict(Settings(home=tmp_path), Console(file=said), [str(photo)], None) == 0
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


def test_image_names_a_file_a_folder_or_several(tmp_path, monkeypatch):
    folder = tmp_path / "my photos"
    (folder / "beagle").mkdir(parents=True)
    for name in ("b.jpg", "a.jpg", ".DS_Store"):
        (folder / "beagle" / name).write_bytes(b"x")
    a, b = folder / "beagle" / "a.jpg", folder / "beagle" / "b.jpg"
    assert predict.chosen([str(folder)]) == [a, b]
    assert predict.chosen([str(b)]) == [b]
    monkeypatch.chdir(folder)
    assert predict.chosen(["beagle/b.jpg beagle/a.jpg"]) == [b.relative_to(folder), a.relative_to(folder)]
    with pytest.raises(RunError, match="give a photo"):
        predict.chosen([""])
    with pytest.raises(RunError, match=r"IMAGE=gone.jpg is not a file"):
        predict.chosen(["gone.jpg"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="holds no file"):
        predict.chosen([str(tmp_path / "empty")])


def test_an_unknown_photo_is_called_unknown_and_an_unsure_answer_unsure():
    top = [{"class": "beagle", "probability": 0.7}, {"class": "collie", "probability": 0.2}]
    assert predict.told({"top": top}) == ("beagle 70.0%", "collie 20.0%")
    assert "not sure" in predict.told({"top": top, "abstain": True})[0]
    answer, others = predict.told({"top": top, "unknown": True})
    assert answer.startswith("[yellow]unknown")
    assert others == "nearest: beagle 70.0%, collie 20.0%"


def test_a_refusal_is_told_in_the_server_s_own_words():
    said = {"error": {"reason": "not_an_image", "message": "the file is no photo: it begins with PK"}}
    response = {"Error": {"Message": "Received client error (415) ..."}, "OriginalMessage": json.dumps(said)}
    assert predict.reason_of(response) == said["error"]["message"]
    assert predict.reason_of({"Error": {"Message": "throttled"}}) == "throttled"
