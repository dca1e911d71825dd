"""Training jobs through boto3 and HTTP: what a script finds, what it leaves, and how it ends."""

from __future__ import annotations

import io
import json
import tarfile

import pytest
from botocore.exceptions import ClientError

from tests.local_aws.archives import wheel
from tests.local_aws.cloud import (
    Cloud,
    channel,
    eventually,
    training_request,
    unique,
)
from tests.local_aws.training import SLEEPER, artifact

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

    files = artifact(cloud, job["ModelArtifacts"]["S3ModelArtifacts"])
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
    output = artifact(cloud, f"s3://{bucket}/output/{name}/output/output.tar.gz")
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


def test_the_first_of_several_instance_types_is_selected(cloud: Cloud, bucket: str) -> None:
    name = unique("preferences")
    request = training_request(name, bucket, cloud.put_code(bucket, train="pass"))
    types = [{"InstanceType": "ml.m5.large"}, {"InstanceType": "ml.m5.xlarge"}]
    request["ResourceConfig"] = {"InstancePreferences": types, "InstanceCount": 2, "VolumeSizeInGB": 1}
    cloud.sagemaker.create_training_job(**request)
    job = cloud.training_ended(name)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    resources = job["ResourceConfig"]
    assert (resources["SelectedInstanceType"], resources["SelectedInstanceCount"]) == ("ml.m5.large", 2)
    assert "InstanceType" not in resources


def test_missing_data_is_refused_at_the_call(cloud: Cloud, bucket: str) -> None:
    name = unique("nodata")
    request = training_request(name, bucket, cloud.put_code(bucket, train="pass"))
    request["InputDataConfig"] = [channel("train", f"s3://{bucket}/nothing-here")]
    with pytest.raises(ClientError, match=r"ValidationException.*No S3 objects found under S3 URL"):
        cloud.sagemaker.create_training_job(**request)


def test_stop_gives_the_script_time_and_keeps_its_artifacts(cloud: Cloud, bucket: str) -> None:
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
    assert artifact(cloud, job["ModelArtifacts"]["S3ModelArtifacts"]) == {"saved.txt": b"at the end"}
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
    assert artifact(cloud, job["ModelArtifacts"]["S3ModelArtifacts"]) == {"args": b"--lr 0.5"}


def test_job_sees_neither_other_jobs_nor_the_state_folder(cloud: Cloud, bucket: str) -> None:
    name = unique("nosy")
    source = f"""
import os
state = {str(cloud.state)!r}
print("state", os.listdir(state) if os.path.exists(state) else [])
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


def test_a_job_installs_packages_itself_over_the_images(cloud: Cloud, bucket: str) -> None:
    """The image's interpreter is read-only; pip writes to a layer, whose versions come before the image's."""
    for name, version in (("trebled", "1.0"), ("requests", "99.0")):
        content = wheel(name, f"__version__ = {version!r}", version)
        cloud.s3.put_object(Bucket=bucket, Key=f"wheels/{name}-{version}-py3-none-any.whl", Body=content)
    commands = """
set -e
python3 -c "import requests; print('before', requests.__version__ != '99.0')"
pip install --no-index --no-deps -q /opt/ml/input/data/wheels/*.whl
python3 -m pip install --no-index -q trebled numpy
python3 -c "import numpy, requests, trebled; print('after', requests.__version__, trebled.__version__)"
torchrun --no-python python3 -c "import trebled; print('torchrun', trebled.__version__)"
"""
    request = training_request(unique("pip"), bucket, "s3://none/none")
    cloud.s3.put_object(Bucket=bucket, Key="wheels/run.sh", Body=commands.encode())
    entry = ["/bin/bash", "/opt/ml/input/data/wheels/run.sh"]
    request["AlgorithmSpecification"] |= {"ContainerEntrypoint": entry}
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/wheels/"}}
    request["InputDataConfig"] = [{"ChannelName": "wheels", "DataSource": source}]
    cloud.sagemaker.create_training_job(**request)
    ended = cloud.training_ended(request["TrainingJobName"], 180)
    lines = cloud.log_of(request["TrainingJobName"])
    assert ended["TrainingJobStatus"] == "Completed", lines
    assert [line for line in lines if line.startswith(("before", "after", "torchrun"))] == [
        "before True",
        "after 99.0 1.0",
        "torchrun 1.0",
    ]


def test_a_shell_script_runs_without_the_right_to(cloud: Cloud, bucket: str) -> None:
    script = b"#!/bin/sh\necho done > /opt/ml/model/said\n"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("train.sh")  # as Windows packs it, without the execute bit
        member.size, member.mode = len(script), 0o644
        archive.addfile(member, io.BytesIO(script))
    cloud.s3.put_object(Bucket=bucket, Key="shell.tar.gz", Body=packed.getvalue())
    name = unique("shell")
    request = training_request(name, bucket, f"s3://{bucket}/shell.tar.gz")
    request["HyperParameters"]["sagemaker_program"] = json.dumps("train.sh")
    cloud.sagemaker.create_training_job(**request)
    job = cloud.training_ended(name)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert artifact(cloud, job["ModelArtifacts"]["S3ModelArtifacts"]) == {"said": b"done\n"}
