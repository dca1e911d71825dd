"""`local-aws env`, `local-aws run` and sessions that stay on loopback."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from local_aws import cli
from local_aws.clients.session import is_aws, session
from tests.local_aws.cloud import Cloud

STS = "https://sts.us-east-1.amazonaws.com"
ACCOUNT = f"import boto3; print(boto3.client('sts', endpoint_url='{STS}').get_caller_identity()['Account'])"


def local_aws(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    command = [sys.executable, "-m", "local_aws", *arguments]
    return subprocess.run(command, env={**own, **environment}, capture_output=True, text=True)


def test_a_shell_evaluates_the_exports(cloud: Cloud) -> None:
    exports = local_aws("env", "--state", str(cloud.state), "--region", "eu-west-1").stdout
    script = (
        f'{exports}\necho "$AWS_ENDPOINT_URL $AWS_DEFAULT_REGION $AWS_ACCESS_KEY_ID ${{AWS_PROFILE-none}}"'
    )
    shell = subprocess.run(["sh", "-c", script], env={"AWS_PROFILE": "prod"}, capture_output=True, text=True)
    assert shell.stdout.split() == [cloud.url, "eu-west-1", "local", "none"]


def test_a_command_reaches_it_even_by_addresses_of_aws(cloud: Cloud) -> None:
    done = local_aws(
        "run", "--state", str(cloud.state), "--", sys.executable, "-c", ACCOUNT, AWS_PROFILE="prod"
    )
    assert done.stdout.split() == ["123456789012"], done.stderr


def test_the_sdk_does_not_sleep_for_seconds_between_two_looks_at_a_job(cloud: Cloud) -> None:
    if importlib.util.find_spec("sagemaker") is None:
        pytest.skip("needs the SageMaker SDK: pip install sagemaker")
    code = "from sagemaker.core import resources; resources.time.sleep(86400); print('awake')"
    done = local_aws("run", "--state", str(cloud.state), "--", sys.executable, "-c", code)
    assert done.stdout.split() == ["awake"], done.stderr


def test_run_keeps_a_sitecustomize_of_the_user(cloud: Cloud, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nif 'AWS_ENDPOINT_URL' in os.environ: print('mine')"
    )
    done = local_aws(
        "run", "--state", str(cloud.state), "--", sys.executable, "-c", "", PYTHONPATH=str(tmp_path)
    )
    assert done.stdout.split() == ["mine"], done.stderr


def test_status_of_the_command_and_faults_in_one_line(cloud: Cloud, tmp_path: Path) -> None:
    assert local_aws("run", "--state", str(cloud.state), "--", "sh", "-c", "exit 7").returncode == 7
    for arguments, text in (
        (["run", "--state", str(cloud.state)], "no command"),
        (["run", "--state", str(cloud.state), "--", "no-such-program"], "cannot be started"),
        (["env", "--state", str(tmp_path)], "python -m local_aws start --state"),
    ):
        done = local_aws(*arguments)
        assert done.returncode == 1
        assert text in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_session_ignores_addresses_of_aws(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    made = session(
        cloud.url, region_name="us-east-1", aws_access_key_id="any", aws_secret_access_key="credentials"
    )
    assert made.client("sts", endpoint_url=STS).get_caller_identity()["Account"] == "123456789012"
    assert made.client("s3", endpoint_url="http://127.0.0.1:1").meta.endpoint_url == "http://127.0.0.1:1"
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with pytest.raises(RuntimeError, match="local-aws env"):
        session(region_name="us-east-1").client("s3")


def test_addresses_of_aws() -> None:
    assert is_aws(STS)
    assert is_aws("https://sts.cn-north-1.amazonaws.com.cn")
    assert not is_aws("http://127.0.0.1:4566")
    assert not is_aws("http://bucket.s3.amazonaws.com.evil.example")
    assert not is_aws(None)


def test_help_names_both_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert {"env", "run"} <= set(capsys.readouterr().out.replace(",", " ").split())
