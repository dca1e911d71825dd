"""Preflight checks report obstacles before anything long starts."""

import io
import shutil
import socket
import threading
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from launcher import __main__ as command_line
from launcher import preflight, run, supervisor
from launcher.preflight import PreflightError, free_port
from launcher.settings import Settings, SettingsError


def test_a_taken_port_names_the_setting_that_moves_it(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        settings = Settings(home=tmp_path, airflow_port=free_port(), local_aws_port=taken)
        with pytest.raises(PreflightError, match=rf"port {taken} is in use.*make run LOCAL_AWS_PORT=\d+"):
            preflight.check_ports(settings)


def test_a_full_disk_is_refused_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100_000_000))
    with pytest.raises(PreflightError, match=r"0\.1 GB free .* needs 1\.\d GB.*ML_PIPELINE_HOME"):
        preflight.check_disk(tmp_path / "not" / "yet" / "there")


def test_a_home_is_made_and_taken_again(tmp_path):
    preflight.claim_home(tmp_path / "home")
    assert preflight.is_home(tmp_path / "home")
    preflight.claim_home(tmp_path / "home")


def test_a_folder_with_other_files_is_never_a_home(tmp_path, monkeypatch, capsys):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(PreflightError, match="ML_PIPELINE_HOME a folder of its own"):
        preflight.claim_home(tmp_path)
    monkeypatch.setenv("ML_PIPELINE_HOME", str(tmp_path))
    assert command_line.main(["clean"]) == 0
    assert "nothing to remove" in capsys.readouterr().out
    assert (tmp_path / "photo.jpg").exists()


@pytest.mark.parametrize(
    "text",
    [
        '{"api_key": "x"}',
        '{"jwt": "a", "fernet": "b", "admin_password": "c", "api_key": "x"}',
        '{"jwt": "a", "fernet": "b", "admin_password": 1}',
        '["jwt", "fernet", "admin_password"]',
        "{",
        "\xff",
    ],
)
def test_a_folder_with_foreign_secrets_is_never_a_home(tmp_path, monkeypatch, capsys, text):
    (tmp_path / "secrets.json").write_bytes(text.encode("latin-1"))
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(PreflightError, match=r"secrets\.json was not written by a run.*folder of its own"):
        preflight.claim_home(tmp_path)
    monkeypatch.setenv("ML_PIPELINE_HOME", str(tmp_path))
    assert command_line.main(["clean"]) == 2
    assert "was not written by a run" in capsys.readouterr().err
    assert (tmp_path / "photo.jpg").exists()


def test_a_home_of_the_first_release_is_still_one(tmp_path):
    (tmp_path / "secrets.json").write_text('{"jwt": "a", "fernet": "b", "admin_password": "c"}')
    (tmp_path / "airflow").mkdir()
    preflight.claim_home(tmp_path)
    assert preflight.is_home(tmp_path)


def test_a_home_that_cannot_be_written_names_the_way_out(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PreflightError, match="ML_PIPELINE_HOME"):
        preflight.claim_home(tmp_path / "file" / "home")


def test_one_port_for_two_services_is_refused(tmp_path):
    with pytest.raises(PreflightError, match=r"both 8080.*LOCAL_AWS_PORT=\d+"):
        preflight.check_ports(Settings(home=tmp_path, airflow_port=8080, local_aws_port=8080))


def test_the_second_of_two_starts_waits_for_the_first(tmp_path):
    said = io.StringIO()
    with run.one_at_a_time(tmp_path, Console(file=io.StringIO())):
        second = threading.Thread(target=_start, args=(tmp_path, Console(file=said)))
        second.start()
        deadline = time.monotonic() + 20
        while "waiting" not in said.getvalue():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert second.is_alive()
    second.join(20)
    assert not second.is_alive()


def _start(home, console):
    with run.one_at_a_time(home, console):
        pass


def test_an_unknown_architecture_names_its_neighbours():
    with pytest.raises(SettingsError, match=r"torchvision has no .*mobilenet_v9.*mobilenet_v2"):
        preflight.check_architecture("mobilenet_v9")
    preflight.check_architecture("resnet18")
    with pytest.raises(SettingsError, match=r"timm has no model 'convnext_ato'.*timm:convnext_atto"):
        preflight.check_architecture("timm:convnext_ato")


def test_a_service_that_keeps_ending_is_not_waited_for(tmp_path, monkeypatch):
    settings = Settings(home=tmp_path, airflow_port=free_port(), local_aws_port=free_port())
    settings.logs.mkdir()
    (settings.logs / "local_aws.log").write_text(
        "ModuleNotFoundError: x\nsupervisor: local_aws ended with 1\n"
    )
    child = {"pid": 0, "create_time": 1.0, "restarts": 3, "last_exit": 1}
    monkeypatch.setattr(supervisor, "read_state", lambda _: {"children": {"local_aws": child}})
    with pytest.raises(run.RunError, match="local_aws ended 3 times: ModuleNotFoundError: x"):
        run.wait_until_ready(settings, Console(file=io.StringIO()))
