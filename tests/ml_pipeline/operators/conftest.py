"""AWS for operators: the simulator's, without faults."""

from __future__ import annotations

import pytest

from ml_pipeline.aws.clients import AwsAccess
from tests.ml_pipeline.manifests import manifest
from tests.simulator.simulation import ENVIRONMENT
from tests.simulator.world import Client, World

SHARD = "1" * 64
KEY = "datasets/dogs/versions/abc/manifest.json"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """AWS without faults, with a data set of one shard."""
    made = World(0, faults=0.0)
    made.disk_full = (0.0, 0.0)
    made.objects[KEY] = manifest("dogs", [(SHARD, "train", 4)]).to_json().encode()
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("LOCAL_AWS_URL", raising=False)
    monkeypatch.setattr(AwsAccess, "client", lambda self, service: Client(made, service))
    return made
