"""A pytest plugin for tests of code that uses SageMaker, S3 and their like; pytest loads it by itself.

    def test_training(aws):
        aws.client("s3").create_bucket(Bucket="data")

`local_aws` is one server for the whole session. `aws` is that server with the environment of SDKs pointing at it, and
empty again after the test. Options: `--local-aws-images` (images.toml) and `--local-aws-cores`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:  # boto3 takes a while to import, and pytest loads this module for tests of anything
    import boto3

DEFAULT_REGION = "us-east-1"


@dataclass
class LocalAws:
    """A local_aws that runs for tests.

    Attributes:
        state: Its state folder.
        options: Options of `local-aws start`.
        region: The region of its clients.
    """

    state: Path
    options: tuple[str, ...] = ()
    region: str = DEFAULT_REGION
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Its address."""
        return self.environment["AWS_ENDPOINT_URL"]

    @property
    def session(self) -> boto3.Session:
        """A boto3 session that reaches nothing but this local_aws; the SageMaker SDK takes it as boto_session."""
        from local_aws.clients.session import session

        return session(
            self.url,
            region_name=self.region,
            aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
        )

    def client(self, service: str) -> Any:
        """Return a boto3 client of it."""
        create: Any = self.session.client
        return create(service)

    def start(self) -> None:
        """Start it on a free port. Raises RuntimeError with the reason when it does not start."""
        from local_aws.clients import environment

        self._run("start", "--port", "0", "--region", self.region, *self.options)
        self.environment = environment.variables(self.state, self.region, os.environ)

    def stop(self) -> None:
        """Stop it and everything that it runs."""
        self._run("stop")

    def reset(self) -> None:
        """Delete every object, job, endpoint and instance. It restarts, at another address."""
        self.stop()
        shutil.rmtree(self.state)
        self.start()

    def _run(self, verb: str, *options: str) -> None:
        command = [sys.executable, "-m", "local_aws", verb, "--state", str(self.state), *options]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip() or done.stdout.strip())


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("local_aws")
    group.addoption("--local-aws-images", metavar="FILE", help="images.toml: how to run each image")
    group.addoption("--local-aws-cores", metavar="N", type=int, help="cores that jobs share")


@pytest.fixture(scope="session")
def local_aws(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """A local_aws for the whole session."""
    options: list[str] = []
    for option in ("images", "cores"):
        value = request.config.getoption(f"--local-aws-{option}")
        if value:
            options += [f"--{option}", str(Path(value).absolute()) if option == "images" else str(value)]
    running = LocalAws(tmp_path_factory.mktemp("local_aws") / "state", tuple(options))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def aws(local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalAws]:
    """The session's local_aws, with the environment set to it; it is empty again after the test."""
    import boto3

    from local_aws.clients import environment

    for name in environment.UNSET:
        monkeypatch.delenv(name, raising=False)
    for name, value in local_aws.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    yield local_aws
    local_aws.reset()
