"""A notebook without its environment says in one line what to do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from launcher.preflight import free_port
from launcher.settings import REPOSITORY
from local_aws.clients.pytest_plugin import LocalAws

sys.path.insert(0, str(REPOSITORY / "notebooks"))
import ready


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither local_aws nor an account."""
    for name in ("AWS_ENDPOINT_URL", "ML_PIPELINE_ROLE_ARN", "ML_PIPELINE_BUCKET", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))


def test_a_notebook_started_without_make_notebook_names_the_fix() -> None:
    with pytest.raises(ready.NotReady, match="start the notebooks with `make notebook`"):
        ready.connect()


def test_a_local_aws_that_is_down_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ready.NotReady, match=r"does not answer at .*make notebook"):
        ready.connect("local")


def test_wrong_credentials_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = LocalAws(tmp_path / "state", ("--auth", "required"))
    running.start()
    try:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        assert ready.connect().bucket == "ml-pipeline"
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
        with pytest.raises(ready.NotReady, match=r"credentials .* are refused \(HTTP 403\): .*make notebook"):
            ready.connect()
    finally:
        running.stop()


def test_an_account_needs_its_role_and_bucket() -> None:
    with pytest.raises(ready.NotReady, match="ML_PIPELINE_ROLE_ARN and ML_PIPELINE_BUCKET"):
        ready.connect("account")


def test_an_account_is_never_confused_with_local_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:4566")
    with pytest.raises(ready.NotReady, match="AWS_ENDPOINT_URL is set"):
        ready.connect("account")


def test_the_error_is_one_line_in_a_notebook() -> None:
    (line,) = ready.NotReady("do this")._render_traceback_()
    assert line == "not ready: do this"
