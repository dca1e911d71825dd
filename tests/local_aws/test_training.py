"""Training jobs through boto3 and HTTP: what a script finds, what it leaves, and how it ends."""

from __future__ import annotations

import io
import json
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local_aws import images
from local_aws.capacity import Capacity
from local_aws.context import Context
from local_aws.log_store import LogStore
from local_aws.sagemaker import training
from local_aws.sagemaker.operations import status_member
from local_aws.sagemaker.training_job import TrainingJob
from local_aws.settings import Settings
from local_aws.store import Resource, Store
from tests.local_aws.conftest import (
    IMAGES,
    TRAINING_IMAGE,
    Cloud,
    channel,
    eventually,
    training_request,
    unique,
)

REPORT = """
import json, os, sys
found = {
    "argv": sys.argv[1:],
    "env": dict(os.environ),
    "cwd": os.getcwd(),
    "train": sorted(
        os.path.relpath(os.path.join(folder, name), os.environ["SM_CHANNEL_TRAIN"])
        for folder, _, names in os.walk(os.environ["SM_CHANNEL_TRAIN"]) for name in names
    ),
    "hyperparameters": json.load(open("/opt/ml/input/config/hyperparameters.json")),
    "resources": json.load(open("/opt/ml/input/config/resourceconfig.json")),
}
json.dump(found, open(os.path.join(os.environ["SM_MODEL_DIR"], "report-%s.json" % os.environ["SM_CURRENT_HOST"]), "w"))
open(os.path.join(os.environ["SM_OUTPUT_DATA_DIR"], "extra.txt"), "w").write("kept")
print("accuracy=0.5"); print("accuracy=0.75 epoch=2")
"""

SLEEPER = """
import os, signal, sys, time
def end(*_):
    open(os.path.join(os.environ["SM_MODEL_DIR"], "saved.txt"), "w").write("at the end")
    print("saved"); sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("running")
while True: time.sleep(0.05)
"""


def artefact(cloud: Cloud, uri: str) -> dict[str, bytes]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    packed = io.BytesIO(cloud.s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    with tarfile.open(fileobj=packed) as archive:
        members = [member for member in archive.getmembers() if member.isfile()]
        return {member.name: archive.extractfile(member).read() for member in members}  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def bucket(cloud: Cloud) -> str:
    name = cloud.bucket()
    for key in ("train/cats/1.jpg", "train/dogs/2.jpg", "train/list.txt"):
        cloud.s3.put_object(Bucket=name, Key=key, Body=key.encode())
    return name


def test_script_finds_everything_and_its_results_are_kept(cloud: Cloud, bucket: str) -> None:
    name = unique("report")
    code = cloud.put_code(bucket, train=REPORT)
    request = training_request(
        name, bucket, code, lr=0.1, flag=True, words="two words", _tuning_objective_metric="x"
    )
    request["InputDataConfig"] = [channel("train", f"s3://{bucket}/train")]
    request["Environment"] = {"EXTRA": "1"}
    request["AlgorithmSpecification"]["MetricDefinitions"] = [
        {"Name": "accuracy", "Regex": r"accuracy=([0-9.]+)"}
    ]
    cloud.sagemaker.create_training_job(**request, Tags=[{"Key": "a", "Value": "b"}])
    job = cloud.training_ended(name)

    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    statuses = [transition["Status"] for transition in job["SecondaryStatusTransitions"]]
    assert [s for s in statuses if s != "Pending"] == [
        "Starting",
        "Downloading",
        "Training",
        "Uploading",
        "Completed",
    ]
    assert all("EndTime" in transition for transition in job["SecondaryStatusTransitions"])
    assert [(m["MetricName"], m["Value"]) for m in job["FinalMetricDataList"]] == [("accuracy", 0.75)]
    assert job["BillableTimeInSeconds"] >= 1

    files = artefact(cloud, job["ModelArtifacts"]["S3ModelArtifacts"])
    report = json.loads(files["report-algo-1.json"])
    assert report["argv"] == ["--flag", "True", "--lr", "0.1", "--words", "two words"]
    assert report["train"] == ["cats/1.jpg", "dogs/2.jpg", "list.txt"]
    assert report["cwd"] == "/opt/ml/code"
    assert report["hyperparameters"]["lr"] == "0.1"
    env = report["env"]
    assert env["SM_HPS"] == '{"flag": true, "lr": 0.1, "words": "two words"}'
    assert env["SM_HOSTS"] == '["algo-1"]'
    assert env["SM_MODEL_DIR"] == "/opt/ml/model"
    assert env["SM_CHANNEL_TRAIN"] == "/opt/ml/input/data/train"
    assert env["OMP_NUM_THREADS"] == env["SM_NUM_CPUS"] == "2"
    assert env["EXTRA"] == "1"
    assert env["AWS_ENDPOINT_URL"] == cloud.url
    output = artefact(cloud, f"s3://{bucket}/output/{name}/output/output.tar.gz")
    assert output == {"extra.txt": b"kept"}
    assert "accuracy=0.75 epoch=2" in cloud.log_of(name)
    assert cloud.sagemaker.list_tags(ResourceArn=job["TrainingJobArn"])["Tags"] == [
        {"Key": "a", "Value": "b"}
    ]


def test_failure_reason_carries_the_scripts_own_error(cloud: Cloud, bucket: str) -> None:
    name = unique("fails")
    code = cloud.put_code(bucket, train="raise ValueError('the reason')")
    cloud.sagemaker.create_training_job(**training_request(name, bucket, code))
    job = cloud.training_ended(name)
    assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Failed"
    assert job["FailureReason"].startswith(
        "AlgorithmError: ExecuteUserScriptError:\nExitCode 1\nErrorMessage "
    )
    assert "ValueError: the reason" in job["FailureReason"]
    assert job["FailureReason"].endswith("exit code: 1")


def test_failure_file_is_the_failure_reason(cloud: Cloud, bucket: str) -> None:
    name = unique("fails")
    source = "open('/opt/ml/output/failure', 'w').write('disk on fire'); raise SystemExit(3)"
    cloud.sagemaker.create_training_job(
        **training_request(name, bucket, cloud.put_code(bucket, train=source))
    )
    assert cloud.training_ended(name)["FailureReason"] == "AlgorithmError: disk on fire, exit code: 3"


def test_missing_data_is_a_client_error(cloud: Cloud, bucket: str) -> None:
    name = unique("nodata")
    request = training_request(name, bucket, cloud.put_code(bucket, train="pass"))
    request["InputDataConfig"] = [channel("train", f"s3://{bucket}/nothing-here")]
    cloud.sagemaker.create_training_job(**request)
    reason = cloud.training_ended(name)["FailureReason"]
    assert reason.startswith("ClientError: Data download failed:No S3 objects found under S3 URL")


def test_stop_gives_the_script_time_and_keeps_its_artefacts(cloud: Cloud, bucket: str) -> None:
    name = unique("stopped")
    cloud.sagemaker.create_training_job(
        **training_request(name, bucket, cloud.put_code(bucket, train=SLEEPER))
    )
    eventually(
        lambda: cloud.sagemaker.describe_training_job(TrainingJobName=name)["SecondaryStatus"] == "Training"
    )
    eventually(lambda: "running" in cloud.log_of(name))  # live, while it runs
    cloud.sagemaker.stop_training_job(TrainingJobName=name)
    job = cloud.training_ended(name)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert artefact(cloud, job["ModelArtifacts"]["S3ModelArtifacts"]) == {"saved.txt": b"at the end"}
    with pytest.raises(
        ClientError, match="The request was rejected because the training job is in status Stopped"
    ):
        cloud.sagemaker.stop_training_job(TrainingJobName=name)


def test_max_runtime_stops_a_job(cloud: Cloud, bucket: str) -> None:
    name = unique("long")
    request = training_request(name, bucket, cloud.put_code(bucket, train=SLEEPER))
    request["StoppingCondition"] = {"MaxRuntimeInSeconds": 1}
    cloud.sagemaker.create_training_job(**request)
    job = cloud.training_ended(name)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    assert "ModelArtifacts" in job


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
        files = artefact(cloud, job["ModelArtifacts"]["S3ModelArtifacts"])
        assert json.loads(files["peers.json"]) == ["algo-2"]
        assert json.loads(files["algo-1.json"]) == ["0.tar", "2.tar"]
        assert json.loads(files["algo-2.json"]) == ["1.tar", "3.tar"]


SPOT = """
import os, time
folder = "/opt/ml/checkpoints"
known = sorted(os.listdir(folder))
print("attempt with", known)
if not known:
    open(os.path.join(folder, "step-1"), "w").write("half")
    print("waiting")
    while True: time.sleep(0.05)
open(os.path.join(os.environ["SM_MODEL_DIR"], "from"), "w").write(open(os.path.join(folder, known[0])).read())
"""


def test_interrupted_spot_job_resumes_from_its_checkpoints(cloud: Cloud, bucket: str) -> None:
    name = unique("spot")
    request = training_request(name, bucket, cloud.put_code(bucket, train=SPOT))
    request["EnableManagedSpotTraining"] = True
    request["StoppingCondition"] = {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 120}
    request["CheckpointConfig"] = {"S3Uri": f"s3://{bucket}/checkpoints/{name}"}
    cloud.sagemaker.create_training_job(**request)
    eventually(lambda: cloud.s3.list_objects_v2(Bucket=bucket, Prefix=f"checkpoints/{name}/")["KeyCount"])
    from local_aws import cli

    assert cli.main(["interrupt", "--state", str(cloud.state), name]) == 0
    job = cloud.training_ended(name)
    assert job["TrainingJobStatus"] == "Completed", job["FailureReason"]
    assert artefact(cloud, job["ModelArtifacts"]["S3ModelArtifacts"]) == {"from": b"half"}
    statuses = [transition["Status"] for transition in job["SecondaryStatusTransitions"]]
    assert statuses.count("Interrupted") == 1
    assert statuses.count("Training") == 2
    assert job["BillableTimeInSeconds"] <= job["TrainingTimeInSeconds"] + 1
    assert len(cloud.log_of(name)) >= 3


def test_a_container_entrypoint_runs_from_channels(cloud: Cloud) -> None:
    """The way of SDK v3: `code` and `sm_drivers` channels, and bash as the entrypoint."""
    bucket, name = cloud.bucket(), unique("driver")
    driver = "set -e\ncd /opt/ml/input/data/code\npython3 train.py --lr \"$(python3 -c 'print(0.5)')\"\n"
    cloud.s3.put_object(Bucket=bucket, Key="sm_drivers/sm_train.sh", Body=driver.encode())
    cloud.s3.put_object(
        Bucket=bucket,
        Key="code/train.py",
        Body=b"import sys, os; open('/opt/ml/model/args', 'w').write(' '.join(sys.argv[1:]))",
    )
    request = training_request(name, bucket, "")
    request["HyperParameters"] = {}
    request["AlgorithmSpecification"] |= {
        "TrainingInputMode": "FastFile",
        "ContainerEntrypoint": ["/bin/bash"],
        "ContainerArguments": ["-c", "chmod +x /opt/ml/input/data/sm_drivers/sm_train.sh && "
                               "/bin/bash /opt/ml/input/data/sm_drivers/sm_train.sh"],
    }  # fmt: skip
    request["InputDataConfig"] = [
        channel("code", f"s3://{bucket}/code/"),
        channel("sm_drivers", f"s3://{bucket}/sm_drivers/"),
    ]
    cloud.sagemaker.create_training_job(**request)
    job = cloud.training_ended(name)
    assert job["TrainingJobStatus"] == "Completed", job["FailureReason"]
    assert artefact(cloud, job["ModelArtifacts"]["S3ModelArtifacts"]) == {"args": b"--lr 0.5"}


def test_job_sees_neither_other_jobs_nor_the_state_folder(cloud: Cloud, bucket: str) -> None:
    name = unique("nosy")
    source = f"""
import os
print("state", os.listdir({str(cloud.state)!r}))
print("up", os.listdir("../../.."))
try:
    open("/etc/touched", "w")
    print("host touched")
except OSError as error:
    print("refused", error.errno)
"""
    cloud.sagemaker.create_training_job(
        **training_request(name, bucket, cloud.put_code(bucket, train=source))
    )
    assert cloud.training_ended(name)["TrainingJobStatus"] == "Completed"
    lines = cloud.log_of(name)
    assert "state []" in lines
    assert "host touched" not in lines
    assert not any("metadata.sqlite" in line for line in lines)


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


def _changed(**changes: Any) -> Any:
    return lambda request: request.update(changes)


def _pipe(request: dict[str, Any]) -> None:
    request["InputDataConfig"] = [{**channel("train", "s3://b/p"), "InputMode": "Pipe"}]


def _unknown_image(request: dict[str, Any]) -> None:
    request["AlgorithmSpecification"]["TrainingImage"] = (
        "123456789012.dkr.ecr.us-east-1.amazonaws.com/unknown:1"
    )


def _bad_regex(request: dict[str, Any]) -> None:
    request["AlgorithmSpecification"]["MetricDefinitions"] = [{"Name": "a", "Regex": "("}]


def _over_quota(request: dict[str, Any]) -> None:
    request["ResourceConfig"] |= {"InstanceType": "ml.p3.2xlarge", "InstanceCount": 2}


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (_changed(TrainingJobName="bad_name!"), "ValidationException",
         "1 validation error detected: Value 'bad_name!' at 'trainingJobName' failed to satisfy constraint: "),
        (_changed(StoppingCondition={"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 90}),
         "ValidationException", "MaxWaitTimeInSeconds"),
        (_changed(EnableManagedSpotTraining=True), "ValidationException",
         "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds"),
        (_pipe, "ValidationException", "Pipe input mode is not supported"),
        (_unknown_image, "ValidationException", "local_aws cannot run the training image"),
        (_bad_regex, "ValidationException", "Invalid regex"),
        (_over_quota, "ResourceLimitExceeded",
         "The account-level service limit 'ml.p3.2xlarge for training job usage' is 1 Instances, with current "
         "utilization of 0 Instances and a request delta of 2 Instances."),
    ],
)  # fmt: skip
def test_requests_that_aws_refuses(cloud: Cloud, change: Any, code: str, message: str) -> None:
    request = training_request(unique("refused"), "b", "s3://b/code.tar.gz")
    change(request)
    with pytest.raises(ClientError) as caught:
        cloud.sagemaker.create_training_job(**request)
    assert caught.value.response["Error"]["Code"] == code
    assert message in caught.value.response["Error"]["Message"]


def test_duplicates_unknown_names_and_deletion(cloud: Cloud, bucket: str) -> None:
    name = unique("once")
    request = training_request(name, bucket, cloud.put_code(bucket, train="pass"))
    cloud.sagemaker.create_training_job(**request)
    with pytest.raises(ClientError, match="and a training job with this name already exists") as caught:
        cloud.sagemaker.create_training_job(**request)
    assert caught.value.response["Error"]["Code"] == "ResourceInUse"
    cloud.training_ended(name)
    cloud.sagemaker.delete_training_job(TrainingJobName=name)
    with pytest.raises(ClientError, match="Requested resource not found") as caught:
        cloud.sagemaker.describe_training_job(TrainingJobName=name)
    assert caught.value.response["Error"]["Code"] == "ValidationException"


def test_lists_are_filtered_sorted_and_paged(cloud: Cloud, bucket: str) -> None:
    prefix = unique("page")
    code = cloud.put_code(bucket, train="pass")
    names = [f"{prefix}-{index}" for index in range(5)]
    for name in names:
        cloud.sagemaker.create_training_job(**training_request(name, bucket, code))
    for name in names:
        cloud.training_ended(name)
    pages = cloud.sagemaker.get_paginator("list_training_jobs").paginate(
        NameContains=prefix, StatusEquals="Completed", SortBy="Name", SortOrder="Ascending",
        PaginationConfig={"PageSize": 2},
    )  # fmt: skip
    found = [[job["TrainingJobName"] for job in page["TrainingJobSummaries"]] for page in pages]
    assert found == [names[:2], names[2:4], names[4:]]
    newest = cloud.sagemaker.list_training_jobs(NameContains=prefix, MaxResults=1)["TrainingJobSummaries"]
    assert [job["TrainingJobName"] for job in newest] == [names[-1]]
    assert (
        cloud.sagemaker.list_training_jobs(NameContains=prefix, StatusEquals="Failed")["TrainingJobSummaries"]
        == []
    )
    assert TRAINING_IMAGE


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


def test_requirements_of_the_code_are_met_before_the_script(cloud: Cloud, bucket: str) -> None:
    """Offline: what the image has satisfies; what it lacks fails with pip's reason."""
    outcomes = {}
    for wanted in ("requests>=2", "no-such-package-of-anyone==9"):
        name = unique("needs")
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for file, text in (("train.py", "import requests"), ("requirements.txt", wanted)):
                member = tarfile.TarInfo(file)
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
        cloud.s3.put_object(Bucket=bucket, Key=f"{name}.tar.gz", Body=packed.getvalue())
        request = training_request(name, bucket, f"s3://{bucket}/{name}.tar.gz")
        cloud.sagemaker.create_training_job(**request, EnableNetworkIsolation=True)
        outcomes[wanted] = cloud.training_ended(name)
    satisfied, missing = outcomes.values()
    assert satisfied["TrainingJobStatus"] == "Completed", satisfied.get("FailureReason")
    assert missing["FailureReason"].startswith("AlgorithmError: InstallRequirementsError: ")
    assert "no-such-package-of-anyone" in missing["FailureReason"]


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
