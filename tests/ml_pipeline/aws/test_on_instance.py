"""The EC2 branch's driver and its neighbours, against S3 and EC2 in this process."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from ml_pipeline.aws import code_archive, instances, on_instance
from ml_pipeline.deployment import locks, orphans
from ml_pipeline.deployment.locks import Holder
from ml_pipeline.operators.embed import EmbedOperator
from ml_pipeline.requests import names, packed
from ml_pipeline.requests.instance import Instance
from ml_pipeline.settings import Settings
from tests.ml_pipeline.fake_sagemaker import client_error
from tests.ml_pipeline.manifests import manifest

ORIGIN = names.Origin("train_and_deploy", "run", "ec2.create")
ME, OTHER = Holder("train_and_deploy", "mine"), Holder("train_and_deploy", "other")
LOCK = locks.uri("bucket", "dogs")


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with mock_aws():
        session = boto3.Session(aws_access_key_id="x", aws_secret_access_key="x", region_name="us-east-1")
        session.client("s3").create_bucket(Bucket="bucket")
        yield session


def put(s3: Any, key: str, body: bytes) -> str:
    s3.put_object(Bucket="bucket", Key=key, Body=body)
    return f"s3://bucket/{key}"


def test_a_job_runs_as_sagemaker_would_run_it(
    aws: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3 = aws.client("s3")
    put(s3, "shards/a.tar", b"a")
    put(s3, "shards/b.tar", b"b")
    manifest = json.dumps([{"prefix": "s3://bucket/shards/"}, "a.tar", "b.tar"]).encode()
    job = {
        "script": "train.py",
        "hyperparameters": {"seed": "7"},
        "channels": [
            {"name": "train", "uri": put(s3, "train.manifest", manifest), "manifest": True},
            {"name": "weights", "uri": put(s3, "weights/abc", b"w"), "manifest": False},
        ],
        "model_uri": "s3://bucket/jobs/x/output/model.tar.gz",
    }
    (tmp_path / "train.py").write_text(
        "import os, pathlib, sys\n"
        "found = sorted(p.name for p in pathlib.Path(os.environ['SM_CHANNEL_TRAIN']).iterdir())\n"
        "text = ' '.join([*sys.argv[1:], *found, *os.listdir(os.environ['SM_CHANNEL_WEIGHTS'])])\n"
        "pathlib.Path(os.environ['SM_MODEL_DIR'], 'trial.json').write_text(text)\n"
    )
    monkeypatch.chdir(tmp_path)
    uri = put(s3, "jobs/x/job.json", json.dumps(job).encode())
    assert on_instance.run(s3, uri, tmp_path) == job["model_uri"]
    body = s3.get_object(Bucket="bucket", Key="jobs/x/output/model.tar.gz")["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        member = tar.extractfile("trial.json")
        assert member is not None
        assert member.read() == b"--seed 7 a.tar b.tar abc"


def test_the_code_archive_is_the_same_every_time_and_holds_the_entry_points(aws: Any) -> None:
    s3 = aws.client("s3")
    archive = code_archive.publish(s3, "bucket")
    assert code_archive.publish(s3, "bucket") == archive
    with tarfile.open(fileobj=io.BytesIO(archive.body)) as tar:
        members = {member.name: member for member in tar}
    assert {"train.py", "tune.py", "on_instance.py", "model_code/train/__main__.py"} <= set(members)
    assert {member.mtime for member in members.values()} == {0}
    assert code_archive.pack({"b": b"2", "a": b"1"}) == code_archive.pack({"a": b"1", "b": b"2"})


def test_an_embed_job_is_done_only_while_its_embeddings_are_there(aws: Any) -> None:
    s3, settings = aws.client("s3"), Settings("bucket", "arn:aws:iam::1:role/r", "us-east-1")
    listed = manifest("d", [(split, split, 1) for split in ("train", "valid", "test")])
    uri = put(s3, "datasets/d/versions/v/manifest.json", listed.to_json().encode())
    operator = EmbedOperator(
        task_id="embed", dataset={"manifest_uri": uri}, weights={"sha256": "w"}, strategy="head",
        architecture="resnet18",
    )  # fmt: skip
    operator._clients["s3"] = s3
    for split, usable in (("train", False), ("valid", False), ("test", True)):
        key = f"embeddings/{operator._embedder_id()}/{split}.safetensors"
        assert not operator.is_usable(settings, "embed-1")
        put(s3, key, b"e")
        assert operator.is_usable(settings, "embed-1") is usable


@pytest.mark.parametrize(
    "lost", [None, "create_instance_profile", "create_role", "add_role_to_instance_profile"]
)
def test_a_profile_is_made_although_an_answer_is_lost(aws: Any, lost: str | None) -> None:
    iam = aws.client("iam")
    if lost:
        send_twice(iam, lost)
    for _ in range(2):
        instances.ensure_local_profile(iam, "profile")
    (role,) = iam.get_instance_profile(InstanceProfileName="profile")["InstanceProfile"]["Roles"]
    assert role["RoleName"] == "profile"


def test_a_right_that_is_missing_to_make_a_profile_is_named(aws: Any) -> None:
    iam = aws.client("iam")

    def refused(**_: Any) -> Any:
        raise client_error("AccessDenied", "no CreateRole", "CreateRole")

    iam.create_role = refused
    with pytest.raises(ClientError, match="no CreateRole"):
        instances.ensure_local_profile(iam, "profile")
    iam.get_instance_profile = refused
    instances.ensure_local_profile(iam, "made with the account")


def test_a_profile_that_was_half_made_is_completed(aws: Any) -> None:
    iam = aws.client("iam")
    iam.create_role(RoleName="profile", AssumeRolePolicyDocument="{}")
    instances.ensure_local_profile(iam, "profile")
    assert iam.get_instance_profile(InstanceProfileName="profile")["InstanceProfile"]["Roles"]


def test_two_runs_make_one_security_group(aws: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ec2 = aws.client("ec2")
    monkeypatch.setenv("ML_PIPELINE_BUCKET", "bucket")
    monkeypatch.setenv("ML_PIPELINE_ROLE_ARN", "arn:aws:iam::123456789012:role/x")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    settings = Settings.load()
    send_twice(ec2, "create_security_group")
    group = instances.security_group(settings, ec2)
    assert instances.security_group(settings, ec2) == group


def send_twice(client: Any, method: str) -> None:
    """Send each request of a method twice, as botocore does after an answer that was lost."""
    send = getattr(client, method)
    setattr(client, method, lambda **request: (send(**request), send(**request))[1])


def test_one_machine_per_name_and_a_new_one_only_after_a_dead_one(aws: Any) -> None:
    ec2 = aws.client("ec2")
    group = ec2.create_security_group(GroupName="g", Description="d")["GroupId"]
    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    for _ in range(2):
        instances.ensure_local_profile(aws.client("iam"), "profile")
    template = Instance("n", image, "m5.xlarge", "profile", group)
    tags = names.tags(ORIGIN)

    def start() -> tuple[str, bool]:
        return instances.run_or_adopt(ec2, template, lambda n: f"ec2-abc-{n}", tags)

    first, created = start()
    assert created
    assert start() == (first, False)
    assert instances.terminate(ec2, "train_and_deploy", "another run") == []
    (ended,) = instances.terminate(ec2, ORIGIN.dag_id, ORIGIN.run_id)
    assert (ended.instance_id, ended.instance_type, ended.seconds) == (first, "m5.xlarge", 60.0)
    assert instances.terminate(ec2, ORIGIN.dag_id, ORIGIN.run_id) == [ended]
    second, created = start()
    assert created
    assert second != first


def test_a_machine_is_billed_from_its_launch_to_its_end() -> None:
    launched = datetime(2026, 11, 22, 20, 0, tzinfo=UTC)
    running = {"LaunchTime": launched, "StateTransitionReason": ""}
    assert instances.billed_seconds(running, launched + timedelta(hours=2)) == 7200
    ended = {**running, "StateTransitionReason": "User initiated (2026-11-22 20:30:00 GMT)"}
    assert instances.billed_seconds(ended, launched + timedelta(hours=2)) == 1800
    assert instances.billed_seconds(running, launched) == 60


def test_one_deployment_at_a_time(aws: Any) -> None:
    s3 = aws.client("s3")
    assert locks.acquire(s3, LOCK, ME, lambda _: False) is None
    assert locks.acquire(s3, LOCK, ME, lambda _: False) is None
    assert locks.acquire(s3, LOCK, OTHER, lambda _: False) == ME
    assert not locks.release(s3, LOCK, OTHER)
    assert locks.release(s3, LOCK, ME)
    assert locks.acquire(s3, LOCK, OTHER, lambda _: False) is None


def test_a_lock_is_stolen_only_from_a_run_that_is_over(aws: Any) -> None:
    s3 = aws.client("s3")
    assert locks.acquire(s3, LOCK, OTHER, lambda _: False) is None
    assert locks.acquire(s3, LOCK, ME, lambda holder: holder == OTHER) is None
    lock = locks.read(s3, LOCK)
    assert lock is not None
    assert lock.holder == ME


def test_the_janitor_finds_old_machines_of_ours_and_leaves_others_alone(aws: Any) -> None:
    ec2 = aws.client("ec2")
    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1)
    ours = ec2.run_instances(
        ImageId=image,
        MinCount=1,
        MaxCount=1,
        TagSpecifications=[{"ResourceType": "instance", "Tags": names.tags(ORIGIN)}],
    )["Instances"][0]["InstanceId"]
    later = datetime.now(UTC) + timedelta(hours=13)
    account = orphans.Account(aws.client("sagemaker"), ec2, aws.client("cloudwatch"), later)
    swept = orphans.sweep(account, 7, 12, dry_run=True)
    assert [(row["kind"], row["name"]) for row in swept["found"]] == [("instance", ours)]
    assert swept["removed"] == 0
    assert orphans.sweep(account, 7, 12, dry_run=False)["removed"] == 1
    assert orphans.sweep(account, 7, 12, dry_run=True)["found"] == []


def test_the_trials_of_a_packed_search() -> None:
    document = {
        "objective": {"MetricName": "valid_accuracy"},
        "best": {"number": 1, "hyperparameters": {"dropout": 0.2}, "metrics": {"valid_accuracy": 0.9}},
        "trials": [
            {"number": 0, "searched": {"dropout": 0.1}, "status": "Failed", "metrics": {}, "seconds": 1.0},
            {
                "number": 1,
                "searched": {"dropout": 0.2},
                "status": "Completed",
                "metrics": {"valid_accuracy": 0.9},
                "seconds": 2.0,
            },
        ],
    }
    archive = code_archive.pack({"./trials.json": json.dumps(document).encode()})
    result = packed.result("tune-1", packed.read_trials(archive))
    assert result["best_hyperparameters"] == {"dropout": "0.2"}
    assert result["best_training_job"] == "tune-1/trial-001"
    assert [trial["value"] for trial in result["trials"]] == [None, 0.9]
