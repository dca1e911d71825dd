"""The pytest plugin as another project uses it: a folder of its own, with pytest and local_aws installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs/local-aws.md"
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


def test_another_project_uses_the_fixtures(tmp_path: Path) -> None:
    example = re.search(
        r"```python\n# conftest.py\n(.*?)# test_training.py\n(.*?)```", PAGE.read_text(), re.DOTALL
    )
    assert example is not None
    (tmp_path / "conftest.py").write_text(example[1])
    (tmp_path / "test_training.py").write_text(example[2])
    (tmp_path / "test_it.py").write_text(TESTS)
    own = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTEST"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--local-aws-cores", "2"]
    done = subprocess.run(
        [*command, "--basetemp", str(tmp_path / "tmp"), "--rootdir", str(tmp_path), str(tmp_path)],
        env={**own, "AWS_PROFILE": "prod"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "5 passed" in done.stdout, done.stdout + done.stderr
