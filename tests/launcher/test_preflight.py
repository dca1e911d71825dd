"""What stands in the way is said before anything long starts."""

import io
import shutil
import socket
from types import SimpleNamespace

import pytest
from rich.console import Console

from launcher import preflight, run, supervisor
from launcher.preflight import PreflightError, free_port
from launcher.settings import Settings, SettingsError


def test_a_taken_port_names_the_setting_that_moves_it(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        settings = Settings(home=tmp_path, airflow_port=free_port(), local_aws_port=taken)
        with pytest.raises(PreflightError, match=rf"port {taken} is taken.*make run LOCAL_AWS_PORT=\d+"):
            preflight.check_ports(settings)


def test_a_full_disk_is_refused_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100_000_000))
    with pytest.raises(PreflightError, match=r"0\.1 GB free .* needs 1\.\d GB.*ML_PIPELINE_HOME"):
        preflight.check_disk(tmp_path / "not" / "yet" / "there")


def test_enough_disk_makes_the_home(tmp_path):
    preflight.check_disk(tmp_path / "home")
    assert (tmp_path / "home").is_dir()


def test_an_unknown_architecture_names_its_neighbours():
    with pytest.raises(SettingsError, match=r"mobilenet_v9 is no torchvision .*mobilenet_v2"):
        preflight.check_architecture("mobilenet_v9")
    preflight.check_architecture("resnet18")


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
