"""docs/sdk.md works as written, with signatures required: boto3, s3fs, pyarrow and the SageMaker SDK v3."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_aws.clients.pytest_plugin import LocalAws

PAGE = Path(__file__).parents[3] / "docs/sdk.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ([\w/.]+)\n")


def blocks() -> tuple[dict[str, str], str]:
    """The page's files by path (their first line names it), and the rest of its Python as one program."""
    files, program = {}, ""
    for language, text in BLOCK.findall(PAGE.read_text()):
        named = FILE.match(text)
        if named:
            files[named[1]] = text
        elif language == "python":
            program += text
    return files, program


@pytest.fixture
def signed(tmp_path: Path) -> Iterator[LocalAws]:
    """A local_aws that verifies signatures."""
    running = LocalAws(tmp_path / "state", ("--auth", "required", "--cores", "4"))
    running.start()
    yield running
    running.stop()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_examples_of_the_page_run(signed: LocalAws, tmp_path: Path) -> None:
    files, program = blocks()
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "page.py").write_text(program)
    command = [sys.executable, "-m", "local_aws", "run", "--state", str(signed.state)]
    done = subprocess.run(
        [*command, "--", sys.executable, "page.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=850,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found = done.stdout
    assert "['numbers/a.csv']" in found
    assert "{'photo': ['a.jpg', 'b.jpg'], 'label': [0, 1]}" in found
    assert "rows 2" in found
    assert "answer [[6.0]]" in found
    assert "transformed ['6', '14']" in found
    sagemaker = signed.client("sagemaker")
    jobs = sagemaker.list_training_jobs()["TrainingJobSummaries"]
    assert [job["TrainingJobStatus"] for job in jobs] == ["Completed"] * 4
    packages = sagemaker.list_model_packages(ModelPackageGroupName="page")["ModelPackageSummaryList"]
    assert [package["ModelApprovalStatus"] for package in packages] == ["Approved"]
    worlds = re.findall(r"files=1 world=(\d)", "\n".join(messages(signed)))
    assert sorted(worlds) == ["1", "1", "1", "2", "2"]


def messages(running: LocalAws) -> list[str]:
    """Every line that training jobs logged."""
    logs, group = running.client("logs"), "/aws/sagemaker/TrainingJobs"
    return [
        event["message"]
        for page in logs.get_paginator("filter_log_events").paginate(logGroupName=group)
        for event in page["events"]
    ]
