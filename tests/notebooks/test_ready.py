"""A notebook without its environment says in one line what to do."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.preflight import free_port
from launcher.settings import REPOSITORY
from local_aws.clients.pytest_plugin import LocalAws
from tests.infra import stacks

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


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A local_aws that stands for an account, to which only the services named here lead."""
    running = LocalAws(tmp_path / "account", ("--auth", "required"))
    running.start()
    url = running.environment["AWS_ENDPOINT_URL"]
    own = {name: value for name, value in running.environment.items() if name != "AWS_ENDPOINT_URL"}
    services = {f"AWS_ENDPOINT_URL_{service}": url for service in ("CLOUDFORMATION", "S3")}
    own |= services | {"AWS_DEFAULT_REGION": stacks.REGION, "AWS_REGION": stacks.REGION}
    local = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}", "AWS_ACCESS_KEY_ID": "local"}
    for name, value in local.items():  # as `make notebook` starts it
        monkeypatch.setenv(name, value)
    for name in own:  # put back after the test
        monkeypatch.setenv(name, local.get(name, ""))
    monkeypatch.setenv("ML_PIPELINE_NOTEBOOK_AWS", json.dumps({"local": local, "account": own}))
    yield
    running.stop()


def test_one_setting_points_the_notebooks_at_an_account(account: None) -> None:
    with pytest.raises(ready.NotReady, match=r"stack ml-pipeline-storage in eu-west-1 .*infra/deploy.sh"):
        ready.connect("account")
    outputs = {name: stacks.create(name) for name in ("storage", "jobs")}
    aws = ready.connect("account")
    assert (aws.where, aws.region) == ("account", stacks.REGION)
    assert (aws.bucket, aws.role) == (outputs["storage"]["Bucket"], outputs["jobs"]["JobRole"])
    with pytest.raises(ready.NotReady, match="does not answer at"):  # and back, in the same kernel
        ready.connect("local")


def test_the_settings_of_airflow_come_before_the_stacks(
    account: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_PIPELINE_ROLE_ARN", "arn:aws:iam::123456789012:role/mine")
    monkeypatch.setenv("ML_PIPELINE_BUCKET", "mine")
    with pytest.raises(ready.NotReady, match="there is no bucket mine"):
        ready.connect("account")


def test_an_account_without_credentials_names_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(ready.NotReady, match="credentials; check AWS_PROFILE or your login"):
        ready.connect("account")


def test_an_account_is_never_confused_with_local_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:4566")
    with pytest.raises(ready.NotReady, match="AWS_ENDPOINT_URL is set"):
        ready.connect("account")


def test_the_error_is_one_line_in_a_notebook() -> None:
    (line,) = ready.NotReady("do this")._render_traceback_()
    assert line == "not ready: do this"


def test_an_unknown_profile_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "typo")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.delenv("ML_PIPELINE_NOTEBOOK_AWS", raising=False)
    with pytest.raises(ready.NotReady, match=r"typo.*check AWS_PROFILE"):
        ready.connect("account")
