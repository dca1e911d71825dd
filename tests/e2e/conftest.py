"""A laptop run for the tests: its own home, its own ports, the README's commands through make."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from launcher.preflight import free_port
from launcher.settings import REPOSITORY
from local_aws.iam.credentials import root_key

RUN_SECONDS = 420
_OF_OTHERS = ("AIRFLOW", "AWS_", "MAKE", "MFLAGS")


@dataclass
class Laptop:
    """Runs the project's commands as a user would."""

    folder: Path
    environ: dict[str, str]

    @property
    def home(self) -> Path:
        return Path(self.environ["ML_PIPELINE_HOME"])

    @property
    def local_aws_url(self) -> str:
        return f"http://127.0.0.1:{self.environ['LOCAL_AWS_PORT']}"

    def client(self, service: str) -> Any:
        """A boto3 client of local_aws."""
        key = root_key(self.home / "local_aws")
        return boto3.client(
            service, endpoint_url=self.local_aws_url, region_name="us-east-1",
            aws_access_key_id=key.id, aws_secret_access_key=key.secret,
        )  # fmt: skip

    def sh(self, command: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """One command of the README, its example files replaced by real ones."""
        command = command.replace("photo.jpg", str(self.folder / "photo.jpg"))
        command = re.sub(r"\bDATA=photos\b", f"DATA={self.folder / 'photos'}", command)
        return subprocess.run(
            ["sh", "-c", command], cwd=REPOSITORY, env={**self.environ, **environ}, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=RUN_SECONDS, check=False,
        )  # fmt: skip

    def run(self, **environ: str) -> subprocess.CompletedProcess[str]:
        return self.launcher("run", **environ)

    def launcher(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "launcher", *arguments], cwd=REPOSITORY, text=True,
            env={**self.environ, **environ}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=RUN_SECONDS, check=False,
        )  # fmt: skip

    def up(self) -> None:
        """Start the services; a busy machine may need longer than `make up` lets a person wait."""
        for _ in range(5):
            done = self.launcher("up")
            if "did not start" not in done.stdout:
                break
        assert done.returncode == 0, done.stdout

    def last_run(self) -> dict:
        return json.loads((self.home / "last_run.json").read_text())


def make_laptop(folder: Path) -> Laptop:
    from model_code.data import sample_data

    photos = folder / "photos"
    sample_data.draw(photos, photos=60, classes=4)
    shutil.copy(next(photos.glob("*/*.jpg")), folder / "photo.jpg")
    environ = {
        # The make around these tests would hand its options to the make that a test calls.
        **{name: value for name, value in os.environ.items() if not name.startswith(_OF_OTHERS)},
        "ML_PIPELINE_HOME": str(folder / "home"),
        "AIRFLOW_PORT": str(free_port()),
        "LOCAL_AWS_PORT": str(free_port()),
        "DATA": str(photos),
        "WEIGHTS": "none",
        "ARCHITECTURE": "squeezenet1_1",
        "TRIALS": "2",
        "CONF": json.dumps({"min_accuracy": 0.0}),
        # Nothing of the enclosing pytest may reach the commands.
        "PYTEST_ADDOPTS": "",
    }
    return Laptop(folder, environ)


@pytest.fixture(scope="module")
def laptop(tmp_path_factory):
    made = make_laptop(tmp_path_factory.mktemp("laptop"))
    yield made
    made.launcher("stop")
