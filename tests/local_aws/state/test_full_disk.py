"""A full disk, as SQLite reports it and as a job makes it: every job comes to a recorded end."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local_aws.context import Context
from local_aws.execution import images
from local_aws.execution.capacity import Capacity
from local_aws.sagemaker.jobs.job import Job, JobFailed, Jobs
from local_aws.sagemaker.operations import status_member
from local_aws.sagemaker.processing.operations import RECORDS
from local_aws.sagemaker.training import operations as training
from local_aws.settings import Settings
from local_aws.state.logs import LogStore
from local_aws.state.resources import Resource, Store
from tests.local_aws.cloud import IMAGES, Cloud, eventually, training_request, unique

REGION = "us-east-1"
BIG = "x" * 100_000


def fill(connection: sqlite3.Connection) -> None:
    """The database can grow no more, as on a full disk."""
    connection.execute("PRAGMA max_page_count = 1")  # taken for as many as there are


def make_room(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA max_page_count = 1000000")


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    """The context that services share, with no server."""
    settings = Settings(tmp_path, IMAGES, cores=1)
    store, logs = Store(tmp_path / "metadata.sqlite", status_member), LogStore(tmp_path / "logs.sqlite")
    yield Context(settings, "http://127.0.0.1:1", store, images.load(IMAGES), Capacity(1), logs)
    store.close()
    logs.close()


def record(context: Context, kind: str, **members: Any) -> Resource:
    """A job that only the store knows."""
    name = unique("job")
    document = {status_member(kind): "InProgress", "CreationTime": time.time(), **members}
    return context.store.create(Resource(kind, REGION, name, context.arn(REGION, f"{kind}/{name}"), document))


class Failing(Job):
    """A job that fails, which takes room to record."""

    kind = "processing-job"

    def execute(self) -> None:
        self.folder.mkdir(parents=True)
        raise JobFailed("AlgorithmError: broken")

    def mark_failed(self, reason: str) -> None:
        self.end(
            lambda document: document.update(ProcessingJobStatus="Failed", FailureReason=reason, Big=BIG)
        )

    def mark_stopped(self, reason: str) -> None:
        raise AssertionError(reason)


def test_an_end_is_recorded_as_soon_as_there_is_room(
    context: Context, caplog: pytest.LogCaptureFixture
) -> None:
    job = Failing(context, record(context, "processing-job"))
    fill(context.store._writer)
    job.begin()
    eventually(lambda: f"{job.name} cannot be recorded yet" in caplog.text)
    assert not job.folder.exists()
    assert job.document()["ProcessingJobStatus"] == "InProgress"
    make_room(context.store._writer)
    assert job.finished.wait(30)
    assert job.document()["FailureReason"] == "AlgorithmError: broken"


def test_a_write_that_finds_the_disk_full_leaves_the_store_usable(context: Context) -> None:
    fill(context.store._writer)
    with pytest.raises(sqlite3.OperationalError, match="full"):
        record(context, "processing-job", Big=BIG)
    make_room(context.store._writer)
    assert context.store.all("processing-job") == []
    kept = record(context, "processing-job", Big=BIG)
    assert [found.name for found in context.store.all("processing-job")] == [kept.name]


def test_lines_wait_for_room_in_order(context: Context) -> None:
    writer = context.logs.writer(REGION, "group", "stream")
    fill(context.logs._db)
    writer(BIG.encode())
    writer.flush()
    assert context.logs.events(REGION, "group") == []
    make_room(context.logs._db)
    writer(b"second")
    writer.flush()
    assert [event.message for event in context.logs.events(REGION, "group")] == [BIG, "second"]


def test_a_job_that_lost_its_thread_can_be_stopped(context: Context) -> None:
    request = training_request("lost", "b", "s3://b/code.tar.gz")
    lost = record(context, "training-job", **request | {"AlgorithmSpecification": {"TrainingImage": "x"}})
    context.store.update(
        lost.kind, REGION, lost.name, lambda document: document.update(TrainingJobName=lost.name)
    )
    training.stop(context, REGION, lost.name)
    document = context.store.get(lost.kind, REGION, lost.name).document
    assert (document["TrainingJobStatus"], document["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert document["TrainingEndTime"] >= document["CreationTime"]

    other = record(context, "processing-job")
    context.part(Jobs).stop(context, other, RECORDS)
    document = context.store.get(other.kind, REGION, other.name).document
    assert document["ProcessingJobStatus"] == "Stopped"
    assert document["ProcessingEndTime"] >= document["CreationTime"]


def test_a_job_that_is_stopped_before_it_begins_does_not_run(context: Context) -> None:
    resource = record(context, "processing-job")
    context.part(Jobs).stop(context, resource, RECORDS)
    job = Failing(context, resource)
    context.part(Jobs).begin(job)
    assert job.finished.wait(30)
    assert job.document()["ProcessingJobStatus"] == "Stopped"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[None]:
    """A disk of its own under `own_cloud`'s state."""
    state = tmp_path / "state"
    state.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100m", "none", str(state)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield
    subprocess.run(["umount", "-l", str(state)], check=True)


GREEDY = """
import os, sys
with open(os.environ["SM_MODEL_DIR"] + "/all", "wb", buffering=0) as file:
    try:
        while True: file.write(bytes(1 << 20))
    except OSError as error:
        for line in range(20_000): print("cannot go on:", error, "." * 100)
        sys.exit(3)
"""


def test_a_job_that_fills_the_disk_fails_and_the_next_one_runs(
    small_disk: None, own_cloud: Callable[..., Cloud]
) -> None:
    cloud = own_cloud()
    bucket = cloud.bucket()
    greedy, modest = unique("greedy"), unique("modest")
    cloud.sagemaker.create_training_job(
        **training_request(greedy, bucket, cloud.put_code(bucket, train=GREEDY))
    )
    end = cloud.training_ended(greedy)
    assert end["TrainingJobStatus"] == "Failed"
    assert "No space left on device" in end["FailureReason"]
    cloud.sagemaker.create_training_job(
        **training_request(modest, bucket, cloud.put_code(bucket, train="pass"))
    )
    end = cloud.training_ended(modest)
    assert end["TrainingJobStatus"] == "Completed", end["FailureReason"]
