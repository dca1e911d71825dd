"""`python -m local_aws`: verbs, and one clear line for everything that keeps it from starting."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from local_aws import cli
from local_aws.settings import StartupError
from local_aws.state import folder as state_folder
from tests.local_aws.cloud import IMAGES, Cloud, eventually, training_request, unique

Start = Callable[..., Cloud]


def start(state: Path, *more: str, images: Path = IMAGES) -> int:
    return cli.main(["start", "--state", str(state), "--images", str(images), "--port", "0", *more])


def test_health_status_logs_stop_and_reset(own_cloud: Start, capsys: pytest.CaptureFixture[str]) -> None:
    cloud = own_cloud("--cores", "3")
    with urllib.request.urlopen(f"{cloud.url}/_local_aws/health") as response:
        assert json.load(response)["status"] == "ok"
    bucket, name = cloud.bucket(), unique("job")
    code = cloud.put_code(bucket, train="print('a line')")
    cloud.sagemaker.create_training_job(**training_request(name, bucket, code))
    cloud.training_ended(name)
    capsys.readouterr()

    state = ["--state", str(cloud.state)]

    def status() -> str:
        assert cli.main(["status", *state]) == 0
        return capsys.readouterr().out

    # The cores are given back just after the end is recorded.
    text = eventually(lambda: found if "cores     3, 3 free" in (found := status()) else "")
    assert cloud.url in text
    assert "training-job                1 Completed" in text
    assert cli.main(["status", "--json", *state]) == 0
    assert json.loads(capsys.readouterr().out)["ended"] == {"training-job": {"Completed": 1}}
    assert cli.main(["logs", *state, name]) == 0
    assert "a line" in capsys.readouterr().out
    assert cli.main(["logs", *state]) == 0
    assert "listening on" in capsys.readouterr().out

    assert cli.main(["stop", *state]) == 0
    assert cli.main(["status", *state]) == 1
    assert cli.main(["stop", *state]) == 0
    assert "is not running" in capsys.readouterr().out
    assert cli.main(["reset", "--yes", *state]) == 0
    assert not cloud.state.exists()


def test_a_second_start_says_which_one_runs(own_cloud: Start, capsys: pytest.CaptureFixture[str]) -> None:
    cloud = own_cloud()
    assert start(cloud.state) == 1
    message = capsys.readouterr().err
    assert "a local_aws already runs on" in message
    assert "python -m local_aws stop --state" in message


def test_an_address_that_is_not_the_usual_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "state"
    assert start(state, "--host", "127.0.0.2") == 0
    try:
        assert "local_aws answers at http://127.0.0.2:" in capsys.readouterr().out
        assert cli.main(["status", "--state", str(state)]) == 0
    finally:
        cli.stop(state)
    assert not (state / state_folder.URL).exists()


def test_a_process_that_is_gone_is_not_signalled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    monkeypatch.setattr(cli, "STOP_SECONDS", 0.1)
    with state_folder.locked(tmp_path):
        (tmp_path / state_folder.PID).write_text(str(gone.pid))
        with pytest.raises(StartupError, match="still locked"):
            cli.stop(tmp_path)


def test_port_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert start(tmp_path / "state", "--port", str(taken.getsockname()[1])) == 1
    assert "cannot listen on 127.0.0.1" in capsys.readouterr().err


def test_state_that_cannot_be_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert start(tmp_path / "file") == 1
    assert "choose another with --state" in capsys.readouterr().err


def test_a_full_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=5 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    assert start(tmp_path / "state") == 1
    assert "has 5 MB of disk left, and local_aws needs 64: free some" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schema_version = 2", "has schema_version 2"),
        ("schema_version = 1", "has no [images.<name>] table"),
        ("not toml", "cannot be read"),
        ('schema_version = 1\n[images.a]\npattern = "*"\ncontracts = ["dance"]', "contracts must be a list out of"),
        ('schema_version = 1\n[images.a]\npattern = "*"\ncontracts = ["server"]', "a server needs argv"),
        ('schema_version = 1\n[images.a]\npattern = "*"\ncontracts = ["script"]\ninterpreter = "nonsuch"',
         "nonsuch was found"),
    ],
)  # fmt: skip
def test_images_file_that_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    path = tmp_path / "images.toml"
    path.write_text(text)
    assert start(tmp_path / "state", images=path) == 1
    assert message in capsys.readouterr().err


def test_state_of_a_newer_schema_is_refused_with_the_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    with sqlite3.connect(state / "metadata.sqlite") as newer:
        newer.execute("PRAGMA user_version = 99")
    assert start(state) == 1
    message = capsys.readouterr().err
    assert "was written by a newer local_aws (schema 99" in message
    assert "--state" in message


def test_a_file_that_is_no_store_and_bad_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "metadata.sqlite").write_bytes(b"not a database at all" * 100)
    assert start(state) == 1
    assert "cannot be opened" in capsys.readouterr().err
    assert start(state, "--cores", "0") == 1
    assert "--cores 0" in capsys.readouterr().err
    assert start(state, "--quota", "ml.m5.large") == 1
    assert "ml.m5.xlarge=2" in capsys.readouterr().err


def test_reset_touches_nothing_but_a_state_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "precious").write_text("")
    assert cli.main(["reset", "--yes", "--state", str(tmp_path)]) == 1
    assert "is not a state folder" in capsys.readouterr().err
    assert (tmp_path / "precious").exists()


def test_motos_admin_api_is_not_reachable(cloud: Cloud) -> None:
    for path in ("/moto-api/reset", "/moto-api/data.json", "/moto-api/"):
        request = urllib.request.Request(cloud.url + path, method="POST", data=b"")
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request)
        assert caught.value.code in (403, 404, 405, 501)
    assert eventually(lambda: cloud.client("sts").get_caller_identity()["Account"] == "123456789012")
