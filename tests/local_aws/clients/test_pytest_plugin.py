"""The pytest plugin as another project uses it: a folder of its own, with pytest and local_aws installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs/local-aws.md"
PLUGIN = "local_aws.clients.pytest_plugin"
TESTS = """
import os
import boto3
import pytest

def test_a_bucket(aws):
    boto3.client("s3").create_bucket(Bucket="data")
    assert os.environ["AWS_ENDPOINT_URL"] == aws.url

def test_the_bucket_is_gone(aws):
    assert aws.client("s3").list_buckets()["Buckets"] == []

def test_the_account_is_not_a_real_one(aws):
    sts = aws.session.client("sts", endpoint_url="https://sts.us-east-1.amazonaws.com")
    assert sts.get_caller_identity()["Account"] == "123456789012"

def test_without_the_fixture():
    assert "AWS_ENDPOINT_URL" not in os.environ
"""


def write_project(folder: Path) -> None:
    """Write another project's tests: the page's example, and ours. tests/packages runs them with the wheel alone."""
    example = re.search(r"```python\n(# test_training.py\n.*?)```", PAGE.read_text(), re.DOTALL)
    assert example is not None
    (folder / "test_training.py").write_text(example[1])
    (folder / "test_it.py").write_text(TESTS)


def test_pytest_starts_without_boto3() -> None:
    code = f"import sys, {PLUGIN}; assert 'botocore' not in sys.modules and 'moto' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_another_project_uses_the_fixtures(tmp_path: Path) -> None:
    write_project(tmp_path)
    own = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTEST"))}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        PLUGIN,
        "--local-aws-cores",
        "2",
    ]
    done = subprocess.run(
        [*command, "--basetemp", str(tmp_path / "tmp"), "--rootdir", str(tmp_path), str(tmp_path)],
        env={**own, "AWS_PROFILE": "prod"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "5 passed" in done.stdout, done.stdout + done.stderr
