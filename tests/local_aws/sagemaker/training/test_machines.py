"""Training jobs and their machines: several instances, spot, capacity, warm pools."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from local_aws import cli
from local_aws.context import Context
from local_aws.execution import images
from local_aws.execution.capacity import Capacity
from local_aws.sagemaker.operations import status_member
from local_aws.sagemaker.training import operations as training
from local_aws.sagemaker.training.job import TrainingJob
from local_aws.settings import Settings
from local_aws.state.logs import LogStore
from local_aws.state.resources import Resource, Store
from tests.local_aws.cloud import (
    IMAGES,
    Cloud,
    channel,
    eventually,
    training_request,
    unique,
)
from tests.local_aws.training import SLEEPER, SPOT, artifact

RENDEZVOUS = """
import json, os, socket, time
hosts = json.loads(os.environ["SM_HOSTS"]); me = os.environ["SM_CURRENT_HOST"]
port = int(os.environ["MASTER_PORT"])
if me == hosts[0]:
    server = socket.create_server((hosts[0], port))
    peers = []
    while len(peers) < len(hosts) - 1:
        connection, _ = server.accept(); peers.append(connection.recv(100).decode())
    open(os.environ["SM_MODEL_DIR"] + "/peers.json", "w").write(json.dumps(sorted(peers)))
else:
    while True:
        try:
            socket.create_connection((hosts[0], port)).sendall(me.encode()); break
        except OSError: time.sleep(0.05)
files = sorted(os.listdir(os.environ["SM_CHANNEL_TRAIN"]))
open(os.environ["SM_MODEL_DIR"] + "/%s.json" % me, "w").write(json.dumps(files))
"""


def test_two_jobs_of_two_instances_find_their_own_peers(cloud: Cloud) -> None:
    bucket = cloud.bucket()
    for index in range(4):
        cloud.s3.put_object(Bucket=bucket, Key=f"shards/{index}.tar", Body=b"x")
    manifest = [{"prefix": f"s3://{bucket}/shards/"}, *(f"{index}.tar" for index in range(4))]
    cloud.s3.put_object(Bucket=bucket, Key="train.manifest", Body=json.dumps(manifest).encode())
    code = cloud.put_code(bucket, train=RENDEZVOUS)
    names = [unique("pair"), unique("pair")]
    for name in names:
        request = training_request(name, bucket, code)
        request["ResourceConfig"]["InstanceCount"] = 2
        request["InputDataConfig"] = [
            channel("train", f"s3://{bucket}/train.manifest", "ManifestFile", sharded=True)
        ]
        cloud.sagemaker.create_training_job(**request)
    for name in names:
        job = cloud.training_ended(name)
        assert job["TrainingJobStatus"] == "Completed", job["FailureReason"]
        files = artifact(cloud, job["ModelArtifacts"]["S3ModelArtifacts"])
        assert json.loads(files["peers.json"]) == ["algo-2"]
        assert json.loads(files["algo-1.json"]) == ["0.tar", "2.tar"]
        assert json.loads(files["algo-2.json"]) == ["1.tar", "3.tar"]


def test_interrupted_spot_job_resumes_from_its_checkpoints(cloud: Cloud, bucket: str) -> None:
    name = unique("spot")
    request = training_request(name, bucket, cloud.put_code(bucket, train=SPOT))
    request["EnableManagedSpotTraining"] = True
    request["StoppingCondition"] = {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 120}
    request["CheckpointConfig"] = {"S3Uri": f"s3://{bucket}/checkpoints/{name}"}
    cloud.sagemaker.create_training_job(**request)
    eventually(lambda: cloud.s3.list_objects_v2(Bucket=bucket, Prefix=f"checkpoints/{name}/")["KeyCount"])
    assert cli.main(["interrupt", "--state", str(cloud.state), name]) == 0
    job = cloud.training_ended(name)
    assert job["TrainingJobStatus"] == "Completed", job["FailureReason"]
    assert artifact(cloud, job["ModelArtifacts"]["S3ModelArtifacts"]) == {"from": b"half"}
    statuses = [transition["Status"] for transition in job["SecondaryStatusTransitions"]]
    assert statuses.count("Interrupted") == 1
    assert statuses.count("Training") == 2
    assert job["BillableTimeInSeconds"] <= job["TrainingTimeInSeconds"] + 1
    assert len(cloud.log_of(name)) >= 3


def test_jobs_over_capacity_are_pending_and_run_later(cloud: Cloud, bucket: str) -> None:
    code = cloud.put_code(bucket, train=SLEEPER)
    names = [unique("wide") for _ in range(3)]
    for name in names:
        cloud.sagemaker.create_training_job(**training_request(name, bucket, code))
    cloud.training_reaches(names[2], "Pending")
    for name in names[:2]:
        cloud.training_reaches(name, "Training")
        cloud.sagemaker.stop_training_job(TrainingJobName=name)
    cloud.training_reaches(names[2], "Training")
    cloud.sagemaker.stop_training_job(TrainingJobName=names[2])
    assert cloud.training_ended(names[2])["TrainingJobStatus"] == "Stopped"


def test_a_spot_job_waits_no_longer_than_it_may(cloud: Cloud, bucket: str) -> None:
    code = cloud.put_code(bucket, train=SLEEPER)
    holders = [unique("holder"), unique("holder")]
    for holder in holders:
        cloud.sagemaker.create_training_job(**training_request(holder, bucket, code))
    name = unique("spot")
    request = training_request(name, bucket, code) | {"EnableManagedSpotTraining": True}
    request["StoppingCondition"] = {"MaxRuntimeInSeconds": 1, "MaxWaitTimeInSeconds": 2}
    cloud.sagemaker.create_training_job(**request)
    job = cloud.training_ended(name)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxWaitTimeExceeded")
    assert "TrainingStartTime" not in job
    for holder in holders:
        cloud.sagemaker.stop_training_job(TrainingJobName=holder)


def test_a_job_is_pending_no_longer_than_it_may(tmp_path: Path) -> None:
    """Not over HTTP: the model's least MaxPendingTimeInSeconds is two hours."""
    settings = Settings(tmp_path, IMAGES, cores=1)
    store = Store(tmp_path / "metadata.sqlite", status_member)
    logs = LogStore(tmp_path / "logs.sqlite")
    context = Context(settings, "http://127.0.0.1:1", store, images.load(IMAGES), Capacity(1), logs)
    request = training_request("late", "b", "s3://b/code.tar.gz")
    request["StoppingCondition"]["MaxPendingTimeInSeconds"] = 0.2
    members = {"TrainingJobStatus": "InProgress", "CreationTime": time.time()}
    resource = store.create(Resource("training-job", "us-east-1", "late", "arn", request | members))
    image = training.find_image(context, request["AlgorithmSpecification"])
    with context.capacity.acquire(1, cancelled=lambda: False) or pytest.fail("no cores"):
        job = TrainingJob(context, resource, image)
        job.begin()
        assert job.finished.wait(30)
    document = job.document()
    assert (document["TrainingJobStatus"], document["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert document["FailureReason"].startswith("CapacityError: no capacity within MaxPendingTimeInSeconds")
    store.close()
    logs.close()


def test_a_warm_pool_is_offered_reused_and_terminated(cloud: Cloud, bucket: str) -> None:
    code = cloud.put_code(bucket, train="pass")
    first, second = unique("warm"), unique("warm")
    request = training_request(first, bucket, code)
    request["ResourceConfig"] |= {"InstanceType": "ml.c5.xlarge", "KeepAlivePeriodInSeconds": 60}

    def pool(name: str) -> Any:
        return cloud.sagemaker.describe_training_job(TrainingJobName=name)["WarmPoolStatus"]

    cloud.sagemaker.create_training_job(**request)
    cloud.training_ended(first)
    assert pool(first)["Status"] == "Available"
    cloud.sagemaker.create_training_job(**{**request, "TrainingJobName": second})
    assert pool(first)["Status"] == "Reused"
    assert pool(first)["ReusedByJob"] == second
    cloud.training_ended(second)
    listed = cloud.sagemaker.list_training_jobs(WarmPoolStatusEquals="Available")["TrainingJobSummaries"]
    assert [job["TrainingJobName"] for job in listed] == [second]
    cloud.sagemaker.update_training_job(
        TrainingJobName=second, ResourceConfig={"KeepAlivePeriodInSeconds": 0}
    )
    assert pool(second)["Status"] == "Terminated"


TORCHRUN = """
import os, torch, torch.distributed as dist
dist.init_process_group("gloo")
value = torch.tensor([float(dist.get_rank() + 1)]); dist.all_reduce(value)
print("sum", value.item(), "world", dist.get_world_size())
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_torch_distributed_over_two_instances_twice_at_once(cloud: Cloud, bucket: str) -> None:
    code = cloud.put_code(bucket, train=TORCHRUN)
    names = [unique("torchrun"), unique("torchrun")]
    for name in names:
        request = training_request(
            name, bucket, code,
            sagemaker_torch_distributed_enabled=True, sagemaker_distribution_instance_groups=["homogeneousCluster"],
        )  # fmt: skip
        request["ResourceConfig"]["InstanceCount"] = 2
        cloud.sagemaker.create_training_job(**request)
    for name in names:
        job = cloud.training_ended(name, seconds=120)
        assert job["TrainingJobStatus"] == "Completed", job["FailureReason"]
        assert [line for line in cloud.log_of(name) if line.startswith("sum")] == ["sum 3.0 world 2"] * 2
