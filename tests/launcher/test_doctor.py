"""make doctor names what is missing and the command that fixes it; make logs and make open fail in one line."""

from __future__ import annotations

import io
import socket
from pathlib import Path

import pytest
from rich.console import Console

from launcher import doctor
from launcher.__main__ import main
from launcher.preflight import free_port
from launcher.settings import Settings


def report(settings: Settings) -> tuple[int, str]:
    """The status and the text of a report."""
    out = io.StringIO()
    status = doctor.print_findings(settings, Console(file=out, width=200))
    return status, out.getvalue()


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without credentials, settings or AWS CLI."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "ML_PIPELINE_BUCKET", "LOCAL_AWS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(doctor, "_reaches", lambda host: False)


def test_it_names_what_is_missing_and_the_fix(tmp_path: Path) -> None:
    status, text = report(Settings(tmp_path / "home", free_port(), free_port()))
    assert status == 0, text
    for part in (
        "WEIGHTS=none",
        "infra/deploy.sh",
        "aws configure sso",
        "set ML_PIPELINE_BUCKET",
        "apt-get install podman",
    ):
        assert part in text, part


def test_a_port_in_use_fails_it(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        status, text = report(Settings(tmp_path / "home", taken.getsockname()[1], free_port()))
    assert status == 1
    assert "make run AIRFLOW_PORT=" in text


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["logs"], "make run starts some"),
        (["logs", "--service", "x"], "no log of x"),
        (["open"], "make up starts it"),
    ],
)
def test_without_a_run_the_error_is_one_line(
    command: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ML_PIPELINE_HOME", str(tmp_path))
    assert main(command) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
