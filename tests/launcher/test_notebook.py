"""`make notebook`: JupyterLab on loopback behind a token, with the environment of local_aws."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from launcher import notebook
from launcher.run import RunError
from launcher.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, local_aws_port=14999, notebook_port=18888)


def test_kernels_reach_local_aws_and_get_none_of_airflows_keys(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW_HOME", raising=False)
    environment = notebook.environment(settings, "secret-token")
    assert environment["AWS_ENDPOINT_URL"] == "http://127.0.0.1:14999"
    assert environment["AWS_REGION"] == environment["AWS_DEFAULT_REGION"] == "us-east-1"
    assert environment["JUPYTER_TOKEN"] == "secret-token"
    assert (Path(environment["PYTHONPATH"].partition(":")[0]) / "sitecustomize.py").is_file()
    assert not [name for name in environment if name.startswith(("AIRFLOW__", "AIRFLOW_CONN"))]
    own = [
        name for name in environment if name.startswith(("JUPYTER_", "IPYTHON")) and name != "JUPYTER_TOKEN"
    ]
    assert own
    assert all(environment[name].startswith(str(settings.home)) for name in own)


def test_it_listens_on_loopback_and_the_token_is_not_on_the_command_line(settings: Settings) -> None:
    command = notebook.command(settings, notebook.NOTEBOOKS)
    assert "--ServerApp.ip=127.0.0.1" in command
    assert "--ServerApp.port=18888" in command
    assert "--ServerApp.allow_root=True" in command
    assert not [word for word in command if "token" in word.lower()]


def test_a_port_in_use_is_refused_with_the_fix() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(RunError, match=r"is in use.*NOTEBOOK_PORT="):
            notebook.check_port(taken.getsockname()[1])
