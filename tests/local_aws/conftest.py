"""Fixtures: one real local_aws on a free port for the whole session, and others for tests that stop theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.local_aws.cloud import Cloud, cloud

__all__ = ["cloud"]


@pytest.fixture(scope="module")
def bucket(cloud: Cloud) -> str:
    """A bucket with three objects under train/."""
    name = cloud.bucket()
    for key in ("train/cats/1.jpg", "train/dogs/2.jpg", "train/list.txt"):
        cloud.s3.put_object(Bucket=name, Key=key, Body=key.encode())
    return name


@pytest.fixture
def own_cloud(tmp_path: Path) -> Iterator[Callable[..., Cloud]]:
    """Start a local_aws for one test; it stops with the test."""
    started: list[Cloud] = []

    def start(*options: str) -> Cloud:
        started.append(Cloud(tmp_path / "state", options))
        return started[-1].start()

    yield start
    for running in started:
        running.stop()
