"""Every command of the README and the docs is executed by a test, or listed here with the reason why not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("local_aws/*.md"))]
FENCE = re.compile(r"^ *```sh\n(.*?)^ *```", re.MULTILINE | re.DOTALL)

# Command (its first words) -> the test that executes it.
EXECUTED = {
    "make run": "tests/e2e/test_main_job.py",
    "make run DATA=photos": "tests/e2e/test_main_job.py",
    "make predict IMAGE=photo.jpg": "tests/e2e/test_main_job.py",
    "make status": "tests/e2e/test_main_job.py",
    "make stop": "tests/e2e/test_main_job.py",
    "make clean": "tests/e2e/test_main_job.py",
    "make deploy VERSION=3": "tests/e2e/test_main_job.py",
    "make rollback": "tests/e2e/test_main_job.py",
    "make test": "tests/e2e/test_main_job.py",
    "make bench ONLY=dag-parse": "tests/e2e/test_main_job.py",
    "make setup": "tests/launcher/test_clean_install.py",
    "make docs": "tests/tools/test_reference.py",
    "python docker/new_env.py": "tests/docker/test_entrypoint.py",
    "python -m local_aws start": "tests/tools/test_commands.py",
    "python -m local_aws run": "tests/local_aws/clients/test_environment.py",
    'eval "$(python -m local_aws env': "tests/local_aws/clients/test_environment.py",
    "python -m model_code.": "tests/tools/test_by_hand.py",
    "VERSION=$(ls": "tests/tools/test_by_hand.py",
    "BEST=$(python": "tests/tools/test_by_hand.py",
    "curl -s --retry": "tests/tools/test_by_hand.py",
    "kill %1": "tests/tools/test_by_hand.py",
    "TOKEN=$(curl": "tests/e2e/test_main_job.py",
    'curl -s -X POST "$AIRFLOW_URL/api/v2/dags/train_and_deploy/dagRuns"': "tests/e2e/test_main_job.py",
}
# Command -> why no test executes it.
NOT_EXECUTED = {
    "make check": "runs before the tests (.ci/run); tests/tools/test_pre_commit.py reads its steps",
    "make deploy VERSION=3": "the DAG it starts is tested by tests/ml_pipeline/deployment, the command is not",
    "make rollback": "as make deploy",
    "make test-slow": "it would start itself",
    ".venv/bin/python -m coverage": "it would start itself",
    ".venv/bin/python -m pip install coverage": "coverage is needed by no test",
    '{"name": ': "a line of the variable that the export before it sets",
    "git clone": "needs the address of the repository",
    ".venv/bin/python -m pytest": "it would start itself",
    ".venv/bin/python -m pip install pre-commit": "changes the repository's hooks; the hooks are make check's steps",
    "docker compose": "needs an engine: tests/docker runs the same commands as processes",
    "EMAIL=": "needs an AWS account: tests/infra creates the same stacks in moto",
    "NETWORK=": "needs an AWS account: tests/infra creates the same stacks in moto",
    "AIRFLOW_ROLE=": "needs an AWS account: tests/infra creates the same stacks in moto",
    "PHOTO_BUCKETS=": "needs an AWS account: tests/infra creates the same stacks in moto",
    "REGION=": "needs an AWS account",
    "REGISTRY=": "needs an AWS account",
    "DLC=": "needs an AWS account",
    "aws ecr": "needs an AWS account",
    "aws s3": "tests/local_aws/clients/test_aws_cli.py runs the stock AWS CLI, in an environment of its own",
    "aws sagemaker": "as aws s3",
    "docker build": "needs an engine and an AWS account; tests/docker checks the Dockerfiles",
    "export AIRFLOW__": "sets a variable; tests/packages import the DAGs from the folder",
    "make mwaa": "tests/packages/test_mwaa.py builds and installs it, without make",
    "export ": "sets variables of the shell",
    "ML_PIPELINE_DEFAULTS=": "sets a variable; tests/ml_pipeline read it",
}


def commands() -> Iterator[tuple[str, str]]:
    """Yield (page, command) of every shell block; continued lines are one command."""
    for page in PAGES:
        for block in FENCE.findall(page.read_text()):
            for line in re.sub(r"\\\n\s*", " ", block).splitlines():
                command = re.sub(r" {2,}#.*$", "", line).strip()
                if command and not command.startswith("#"):
                    yield page.relative_to(ROOT).as_posix(), command


@pytest.mark.parametrize(("page", "command"), sorted(set(commands())))
def test_each_command_is_accounted_for(page: str, command: str) -> None:
    if command.startswith("make "):
        known = command in EXECUTED or command in NOT_EXECUTED
    else:
        known = any(command.startswith(start) for start in (*EXECUTED, *NOT_EXECUTED))
    assert known, f"{page}: no test executes {command!r}: add the test, or the reason why not, to this file"


def test_the_tests_exist() -> None:
    assert [name for name in EXECUTED.values() if not (ROOT / name).is_file()] == []


def test_nothing_is_listed_that_no_page_has() -> None:
    found = [command for _, command in commands()]
    stale = [one for one in (*EXECUTED, *NOT_EXECUTED) if not any(c.startswith(one) for c in found)]
    assert stale == []


def test_the_local_aws_page_works_as_written(tmp_path: Path) -> None:
    """Start local_aws with the page's command on a free port, then run its boto3 example."""
    page = (ROOT / "docs/local-aws.md").read_text()
    start = next(command for name, command in commands() if command.startswith("python -m local_aws start"))
    state = tmp_path / "state"
    start = start.replace("python", sys.executable, 1).replace(".local_aws", str(state)).replace("4566", "0")
    subprocess.run(["sh", "-c", start], cwd=ROOT, check=True, capture_output=True)
    try:
        environ = {**os.environ, "AWS_ENDPOINT_URL": (state / "url").read_text()}
        export = next(command for _, command in commands() if command.startswith("export AWS_ENDPOINT_URL"))
        for name, value in re.findall(r"(AWS_[A-Z_]+)=(\S+)", export):
            environ.setdefault(name, value)
        example = re.search(r"```python\n(.*?)```", page, re.DOTALL)
        assert example is not None
        done = subprocess.run(
            [sys.executable, "-c", example[1]], env=environ, capture_output=True, text=True, check=False
        )
        assert "s3://demo/jobs/first/output/model.tar.gz" in done.stdout, done.stderr
    finally:
        stop = [sys.executable, "-m", "local_aws", "stop", "--state", str(state)]
        subprocess.run(stop, cwd=ROOT, check=True, capture_output=True)
