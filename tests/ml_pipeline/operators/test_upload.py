"""The upload of many photos on a real local_aws: one job, adopted, published once."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from airflow.sdk.exceptions import TaskDeferred
from PIL import Image

from ml_pipeline.aws import s3 as objects
from ml_pipeline.aws.clients import AwsAccess
from ml_pipeline.costs import machines
from ml_pipeline.dataset.prepare import Begun
from ml_pipeline.errors import JobFailed
from ml_pipeline.operators.upload import UploadOperator, prepare_request
from ml_pipeline.settings import Settings
from model_code.data.source import DatasetError
from model_code.data.versions import looks
from tests.local_aws.cloud import ENDED, Cloud, eventually
from tests.ml_pipeline.dataset.stores import shapes
from tests.ml_pipeline.operators.test_error_paths import Instance, context
from tests.ml_pipeline.service_model import problems

IMAGES = Path(prepare_request.__code__.co_filename).parents[1] / "aws/images.toml"
SETTINGS = Settings("bucket", "arn:aws:iam::123456789012:role/jobs", "us-east-1")
BEGUN = Begun("dogs", 10**6, 10**11, "abc", "tag", 1, "digest")


def requested(begun: Begun) -> Any:
    addresses = {"photos_uri": "s3://team/photos/", "journal_uri": "s3://bucket/jobs/prepare/1/"}
    return prepare_request(
        "prepare-0123456789ab-1", [], settings=SETTINGS, code_uri="s3://bucket/code/1.tar.gz", begun=begun,
        instance_type="ml.c5.2xlarge", **addresses,
    )  # fmt: skip


def test_the_request_is_one_that_aws_takes() -> None:
    request = requested(BEGUN)
    assert problems("sagemaker", "CreateProcessingJob", request) == []
    inputs = {entry["InputName"]: entry["S3Input"]["S3Uri"] for entry in request["ProcessingInputs"]}
    assert set(inputs) == {"order", "photos", "journal", "parent", "reviewed", "code"}
    outputs = {
        output["OutputName"]: (output["S3Output"]["S3Uri"], output["S3Output"]["S3UploadMode"])
        for output in request["ProcessingOutputConfig"]["Outputs"]
    }
    assert outputs == {
        "shards": ("s3://bucket/datasets/dogs/shards/", "Continuous"),
        "thumbnails": ("s3://bucket/datasets/dogs/thumbnails/", "Continuous"),
        "journal": ("s3://bucket/jobs/prepare/1/", "Continuous"),
        "version": ("s3://bucket/jobs/prepare-0123456789ab-1/version/", "EndOfJob"),
    }
    # 100 GB of photos, and room for what is made of them.
    assert request["ProcessingResources"]["ClusterConfig"]["VolumeSizeInGB"] == 348


def test_photos_that_fit_on_no_disk_are_refused() -> None:
    with pytest.raises(ValueError, match="largest has 16384: take more instances, or fewer photos"):
        requested(replace(BEGUN, bytes=6 * 10**12))


def test_photos_of_another_region_are_refused_before_a_job_is_paid(cloud: Cloud, photos: str) -> None:
    bucket = photos.removeprefix("s3://").partition("/")[0]
    operator = UploadOperator(task_id="upload", data=photos, dataset_name="dogs")
    with pytest.raises(
        DatasetError, match=f"{bucket} is in us-east-1.*eu-west-1.*prepare_instance_type=worker"
    ):
        operator.without_job(Settings(bucket, SETTINGS.role_arn, "eu-west-1"))


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    running = Cloud(tmp_path_factory.mktemp("cloud"), ("--images", str(IMAGES))).start()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def photos(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> str:
    """The prefix of 40 photos, which are many here."""
    monkeypatch.setenv("LOCAL_AWS_URL", cloud.url)
    monkeypatch.setattr(AwsAccess, "client", lambda self, service: cloud.client(service))
    monkeypatch.setattr(machines, "MANY_PHOTOS", 40)
    bucket = cloud.bucket()
    for path, data in shapes(20).items():
        cloud.s3.upload_fileobj(io.BytesIO(data), bucket, f"in/{path}")
    return f"s3://{bucket}/in"


def started(operator: UploadOperator, instance: Any) -> str:
    """Execute until it waits for a job; its name."""
    with pytest.raises(TaskDeferred) as raised:
        operator.execute(context(instance))
    return str(raised.value.trigger.serialize()[1]["job_name"])


def finished(cloud: Cloud, operator: UploadOperator, instance: Any, name: str = "") -> Any:
    """Execute until the job has ended, then complete."""
    name = name or started(operator, instance)

    def ended() -> Any:
        found = cloud.sagemaker.describe_processing_job(ProcessingJobName=name)
        return found if found["ProcessingJobStatus"] in ENDED else None

    found = eventually(ended, 180)
    reason = found.get("FailureReason", "")
    return operator.complete(
        context(instance), {"job_name": name, "status": found["ProcessingJobStatus"], "reason": reason}
    )


def jobs(cloud: Cloud) -> set[str]:
    listed = cloud.sagemaker.list_processing_jobs()["ProcessingJobSummaries"]
    return {summary["ProcessingJobName"] for summary in listed}


def test_many_photos_are_made_a_version_by_one_job(cloud: Cloud, photos: str) -> None:
    operator, instance = (
        UploadOperator(task_id="upload", data=photos, dataset_name="many"),
        Instance("upload"),
    )
    made = finished(cloud, operator, instance)
    assert (made["read"], made["classes"], made["changed"]) == (40, 2, True)
    assert made["job_name"] in jobs(cloud)
    before = jobs(cloud)

    # Cleared, the task finds its job again. In another run nothing is left to read: the worker looks.
    again = UploadOperator(task_id="upload", data=photos, dataset_name="many")
    assert again.execute(context(Instance("upload"))) == made
    later = UploadOperator(task_id="later", data=photos, dataset_name="many").execute(
        context(Instance("later"))
    )
    assert (later["job_name"], later["read"], later["changed"]) == (None, 0, False)
    assert later["version"] == made["version"]
    assert jobs(cloud) == before
    assert (
        operator.client("s3")
        .get_object(Bucket=Settings.load().bucket, Key="datasets/many/latest.json")["Body"]
        .read()
        == b'{"version": "%s"}' % made["version"].encode()
    )


def test_few_photos_and_those_of_a_worker_need_no_job(cloud: Cloud, photos: str, tmp_path: Path) -> None:
    before = jobs(cloud)
    for number, choice in enumerate(("worker", "auto")):
        machines.MANY_PHOTOS += number  # one more than there are
        operator = UploadOperator(
            task_id=f"upload{number}", data=photos, dataset_name=f"few{number}", instance_type=choice
        )
        made = operator.execute(context(Instance(f"upload{number}")))
        assert (made["read"], made["job_name"]) == (40, None)
    assert jobs(cloud) == before


def test_what_a_job_refuses_fails_the_task_with_its_words(cloud: Cloud, photos: str) -> None:
    one = UploadOperator(
        task_id="one", data=f"{photos}/circle", dataset_name="one", instance_type="ml.c5.xlarge"
    )
    cloud.s3.copy(
        {"Bucket": photos.split("/")[2], "Key": "in/circle/1.jpg"},
        photos.split("/")[2],
        "in/circle/only/1.jpg",
    )
    with pytest.raises(JobFailed, match="error: too few readable photos in class 'only'"):
        finished(cloud, one, Instance("one"))


def runs(process: psutil.Process, job: str) -> bool:
    """Tell whether a process is the program of a job."""
    with suppress(psutil.Error):
        program = "model_code.data.versions.prepare" in process.cmdline()
        return program and process.environ().get("PROCESSING_JOB_NAME") == job
    return False


def noise(seed: int) -> bytes:
    """A photo of 3.5 MB."""
    pixels = np.random.default_rng(seed).integers(0, 256, (1500, 2000, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def test_after_a_kill_the_next_job_reads_only_what_was_not_noted(cloud: Cloud, photos: str) -> None:
    bucket = photos.split("/")[2]
    for number in range(32):
        key = f"large/{'ab'[number % 2]}/{number}.jpg"
        cloud.s3.upload_fileobj(io.BytesIO(noise(number)), bucket, key)
    large = f"s3://{bucket}/large"
    operator, instance = (
        UploadOperator(task_id="kill", data=large, dataset_name="kill", instance_type="ml.c5.2xlarge"),
        Instance("kill"),
    )
    name = started(operator, instance)
    # The first 64 MB were looked at: hold the program until S3 has the note, then kill it.
    eventually(lambda: list(cloud.state.rglob("output/journal/looks-*")), 120)
    program = next(process for process in psutil.process_iter() if runs(process, name))
    program.suspend()
    outputs = cloud.sagemaker.describe_processing_job(ProcessingJobName=name)["ProcessingOutputConfig"]
    (journal,) = (one["S3Output"]["S3Uri"] for one in outputs["Outputs"] if one["OutputName"] == "journal")

    def notes() -> list[str]:
        return [journal + key for key in objects.keys(cloud.s3, journal) if "looks-" in key]

    eventually(notes)
    program.kill()
    with pytest.raises(JobFailed, match=f"{name} is Failed"):
        finished(cloud, operator, instance, name)
    # On a busy machine it has looked at the rest, too, before it is held.
    noted = sum(len(looks.read(io.BytesIO(objects.read(cloud.s3, uri)))) for uri in notes())
    made = finished(
        cloud,
        UploadOperator(task_id="kill", data=large, dataset_name="kill", instance_type="ml.c5.2xlarge"),
        instance,
    )
    assert made["job_name"] == f"{name[:-1]}2"
    # 19 or 20 of these photos fill a shard, and a note.
    assert noted >= 19
    assert made["read"] == 32 - noted
