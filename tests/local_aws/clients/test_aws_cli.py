"""The AWS CLI, given an address, credentials and a region, for each family that local_aws answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.local_aws.cloud import ENDED, TRAINING_IMAGE, Signing, eventually, training_request, unique
from tests.local_aws.machines import ENDED as COMMAND_ENDED
from tests.local_aws.machines import IMAGE
from tests.local_aws.processing import request as processing_request
from tests.local_aws.serving import Deployment
from tests.local_aws.transform import doubler
from tests.local_aws.tuning import SCORE
from tests.local_aws.tuning import request as tuning_request

AWSCLI = "awscli==1.46.3"
"""In an environment of its own: it pins packages that this project has in other versions."""

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Cli:
    """`aws` with the address and region of a cloud."""

    program: Path
    cloud: Signing
    home: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Any command, whatever its end."""
        return subprocess.run(
            [self.program, "--endpoint-url", self.cloud.url, "--region", "us-east-1", *arguments],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.home),
                "AWS_ACCESS_KEY_ID": self.cloud.key.id,
                "AWS_SECRET_ACCESS_KEY": self.cloud.key.secret,
                "AWS_DEFAULT_OUTPUT": "json",
            },
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def text(self, *arguments: str) -> str:
        """Return the output of a command that succeeds."""
        done = self.run(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout

    def json(self, *arguments: str, **request: Any) -> Any:
        """The answer to an operation, its request given as JSON."""
        given = ("--cli-input-json", json.dumps(request)) if request else ()
        text = self.text(*arguments, *given)
        return json.loads(text) if text.strip() else None

    def ended(self, status: str, *arguments: str) -> Any:
        """Ask until the status is one of an end."""

        def look() -> Any:
            found = self.json(*arguments)
            return found if found[status] in (*ENDED, *COMMAND_ENDED, "InService") else None

        return eventually(look, 60)


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pinned AWS CLI, installed from the package index."""
    folder = tmp_path_factory.mktemp("awscli")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=120)
    install = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", AWSCLI]
    done = subprocess.run(install, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        pytest.skip(f"{AWSCLI} cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    return folder / "bin/aws"


@pytest.fixture
def aws(program: Path, signing: Signing, tmp_path: Path) -> Cli:
    return Cli(program, signing, tmp_path)


def test_training_jobs_tags_and_search(aws: Cli) -> None:
    bucket, name = aws.cloud.bucket(), unique("cli")
    code = aws.cloud.put_code(bucket, train="print('seen')")
    request = training_request(name, bucket, code) | {"Tags": [{"Key": "team", "Value": name}]}
    arn = aws.json("sagemaker", "create-training-job", **request)["TrainingJobArn"]
    describe = ("sagemaker", "describe-training-job", "--training-job-name", name)
    assert aws.ended("TrainingJobStatus", *describe)["TrainingJobStatus"] == "Completed"
    listed = aws.json("sagemaker", "list-training-jobs", "--name-contains", name, "--max-items", "1")
    assert [job["TrainingJobName"] for job in listed["TrainingJobSummaries"]] == [name]

    aws.text("sagemaker", "add-tags", "--resource-arn", arn, "--tags", "Key=a,Value=1")
    aws.text("sagemaker", "delete-tags", "--resource-arn", arn, "--tag-keys", "team")
    assert aws.json("sagemaker", "list-tags", "--resource-arn", arn)["Tags"] == [{"Key": "a", "Value": "1"}]
    expression = {"Filters": [{"Name": "TrainingJobName", "Operator": "Equals", "Value": name}]}
    found = aws.json("sagemaker", "search", Resource="TrainingJob", SearchExpression=expression)["Results"]
    assert [result["TrainingJob"]["TrainingJobArn"] for result in found] == [arn]
    refused = aws.run("sagemaker", "stop-training-job", "--training-job-name", name)
    assert refused.returncode != 0
    assert "(ValidationException) when calling the StopTrainingJob operation" in refused.stderr
    assert "is in status Completed" in refused.stderr
    group = ("--log-group-name", "/aws/sagemaker/TrainingJobs")
    events = aws.json("logs", "filter-log-events", *group, "--log-stream-name-prefix", f"{name}/")["events"]
    assert "seen" in [event["message"] for event in events]


def test_tuning_jobs(aws: Cli) -> None:
    request = tuning_request(aws.cloud, SCORE)
    name = request["HyperParameterTuningJobName"]
    aws.json("sagemaker", "create-hyper-parameter-tuning-job", **request)
    by_name = ("--hyper-parameter-tuning-job-name", name)
    job = aws.ended(
        "HyperParameterTuningJobStatus", "sagemaker", "describe-hyper-parameter-tuning-job", *by_name
    )
    assert job["TrainingJobStatusCounters"]["Completed"] == 4
    trials = aws.json("sagemaker", "list-training-jobs-for-hyper-parameter-tuning-job", *by_name)
    assert len(trials["TrainingJobSummaries"]) == 4
    listed = aws.json("sagemaker", "list-hyper-parameter-tuning-jobs", "--name-contains", name)
    assert len(listed["HyperParameterTuningJobSummaries"]) == 1
    aws.text("sagemaker", "delete-hyper-parameter-tuning-job", *by_name)


def test_processing_jobs(aws: Cli) -> None:
    bucket = aws.cloud.bucket()
    source = "open('/opt/ml/processing/output/result/made', 'w').write('1')"
    request = processing_request(aws.cloud, bucket, source, ProcessingInputs=[])
    name = request["ProcessingJobName"]
    aws.json("sagemaker", "create-processing-job", **request)
    describe = ("sagemaker", "describe-processing-job", "--processing-job-name", name)
    assert aws.ended("ProcessingJobStatus", *describe)["ProcessingJobStatus"] == "Completed"
    assert "made" in aws.text("s3", "ls", f"s3://{bucket}/result/")
    listed = aws.json("sagemaker", "list-processing-jobs", "--name-contains", name)
    assert len(listed["ProcessingJobSummaries"]) == 1


def test_transform_jobs(aws: Cli) -> None:
    bucket, name = aws.cloud.bucket(), unique("cli")
    aws.cloud.s3.put_object(Bucket=bucket, Key="in/a.csv", Body=b"2\n")
    location = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/in/"}}
    aws.json(
        "sagemaker", "create-transform-job",
        TransformJobName=name, ModelName=doubler(aws.cloud),
        TransformInput={"DataSource": location, "ContentType": "text/csv"},
        TransformOutput={"S3OutputPath": f"s3://{bucket}/out"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
    )  # fmt: skip
    describe = ("sagemaker", "describe-transform-job", "--transform-job-name", name)
    assert aws.ended("TransformJobStatus", *describe)["TransformJobStatus"] == "Completed"
    assert aws.text("s3", "cp", f"s3://{bucket}/out/a.csv.out", "-") == "4.0"


def test_models_endpoints_and_invocations(aws: Cli) -> None:
    deployment = Deployment(aws.cloud)
    endpoint, first, second = deployment.endpoint, deployment.config("one"), deployment.config("two")
    assert aws.json("sagemaker", "list-models", "--max-items", "1")["Models"]
    shown = aws.json("sagemaker", "describe-endpoint-config", "--endpoint-config-name", first)
    assert shown["ProductionVariants"][0]["VariantName"] == "v0"
    by_name = ("--endpoint-name", endpoint)
    aws.json("sagemaker", "create-endpoint", *by_name, "--endpoint-config-name", first)
    assert (
        aws.ended("EndpointStatus", "sagemaker", "describe-endpoint", *by_name)["EndpointStatus"]
        == "InService"
    )

    def version() -> str:
        answer = aws.json("sagemaker-runtime", "invoke-endpoint", *by_name, "--body", "x", "out.json")
        assert answer["InvokedProductionVariant"] == "v0"
        return str(json.loads((aws.home / "out.json").read_text())["version"])

    assert version() == "one"
    aws.json("sagemaker", "update-endpoint", *by_name, "--endpoint-config-name", second)
    deployment.settled()
    assert version() == "two"
    weights = "VariantName=v0,DesiredWeight=0.5,DesiredInstanceCount=1"
    update = ("update-endpoint-weights-and-capacities", "--desired-weights-and-capacities", weights)
    aws.json("sagemaker", *update, *by_name)
    assert deployment.settled()["ProductionVariants"][0]["CurrentWeight"] == 0.5
    aws.text("sagemaker", "delete-endpoint", *by_name)
    aws.text("sagemaker", "wait", "endpoint-deleted", *by_name)


def test_the_model_registry(aws: Cli) -> None:
    group = unique("cli")
    aws.json("sagemaker", "create-model-package-group", "--model-package-group-name", group)
    container = {"Image": TRAINING_IMAGE, "ModelDataUrl": "s3://b/model.tar.gz"}
    package = aws.json(
        "sagemaker", "create-model-package",
        ModelPackageGroupName=group,
        InferenceSpecification={
            "Containers": [container],
            "SupportedContentTypes": ["image/jpeg"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
    )["ModelPackageArn"]  # fmt: skip
    by_arn = ("--model-package-arn", package)
    aws.json("sagemaker", "update-model-package", *by_arn, "--model-approval-status", "Approved")
    shown = aws.json("sagemaker", "describe-model-package", "--model-package-name", package)
    assert shown["ModelApprovalStatus"] == "Approved"
    listed = aws.json("sagemaker", "list-model-packages", "--model-package-group-name", group)
    assert len(listed["ModelPackageSummaryList"]) == 1
    aws.text("sagemaker", "delete-model-package", "--model-package-name", package)
    aws.text("sagemaker", "delete-model-package-group", "--model-package-group-name", group)


def test_s3_high_level_and_api(aws: Cli) -> None:
    bucket = unique("cli")
    aws.text("s3", "mb", f"s3://{bucket}")
    folder = aws.home / "tree"
    (folder / "deep").mkdir(parents=True)
    (folder / "a b+ü.txt").write_text("odd name")
    (folder / "deep/big").write_bytes(os.urandom(9 * 2**20))  # above the CLI's multipart threshold
    aws.text("s3", "sync", "--no-progress", str(folder), f"s3://{bucket}/tree")
    assert "upload" not in aws.text("s3", "sync", str(folder), f"s3://{bucket}/tree")
    copied = aws.home / "copied"
    aws.text("s3", "cp", "--recursive", "--no-progress", f"s3://{bucket}/tree", str(copied))
    assert (copied / "deep/big").read_bytes() == (folder / "deep/big").read_bytes()
    assert (copied / "a b+ü.txt").read_text() == "odd name"
    head = aws.json("s3api", "head-object", "--bucket", bucket, "--key", "tree/deep/big")
    assert head["ETag"].endswith('-2"')
    listed = aws.json("s3api", "list-objects-v2", "--bucket", bucket, "--page-size", "1")
    assert [entry["Key"] for entry in listed["Contents"]] == ["tree/a b+ü.txt", "tree/deep/big"]
    refused = aws.run(
        "s3api", "put-object", "--bucket", bucket, "--key", "tree/deep/big", "--if-none-match", "*"
    )
    assert "(PreconditionFailed)" in refused.stderr
    assert "(404)" in aws.run("s3api", "head-object", "--bucket", bucket, "--key", "none").stderr
    aws.text("s3", "rb", "--force", f"s3://{bucket}")
    assert "NoSuchBucket" in aws.run("s3", "ls", f"s3://{bucket}").stderr


def test_instances_and_commands(aws: Cli) -> None:
    image = aws.json("ssm", "get-parameter", "--name", IMAGE)["Parameter"]["Value"]
    started = aws.json("ec2", "run-instances", "--image-id", image, "--instance-type", "m5.large")
    name = started["Instances"][0]["InstanceId"]
    by_id = ("--instance-ids", name)
    try:
        aws.text("ec2", "wait", "instance-running", *by_id)
        known = aws.json("ssm", "describe-instance-information")["InstanceInformationList"]
        assert name in [entry["InstanceId"] for entry in known]
        sent = aws.json(
            "ssm", "send-command", *by_id, "--document-name", "AWS-RunShellScript",
            "--parameters", 'commands=["echo from $HOME; exit 3"]',
        )  # fmt: skip
        command = sent["Command"]["CommandId"]
        result = aws.ended(
            "Status", "ssm", "get-command-invocation", "--command-id", command, "--instance-id", name
        )
        assert (result["Status"], result["ResponseCode"]) == ("Failed", 3)
        assert result["StandardOutputContent"].startswith("from /")
        listed = aws.json("ssm", "list-command-invocations", "--command-id", command, "--details")
        assert len(listed["CommandInvocations"]) == 1
    finally:
        aws.json("ec2", "terminate-instances", *by_id)
    aws.text("ec2", "wait", "instance-terminated", *by_id)


def test_metrics_alarms_logs_events_and_queues(aws: Cli) -> None:
    name = unique("cli")
    aws.text("cloudwatch", "put-metric-data", "--namespace", name, "--metric-name", "m", "--value", "4")
    metrics = aws.json("cloudwatch", "list-metrics", "--namespace", name)["Metrics"]
    assert [metric["MetricName"] for metric in metrics] == ["m"]
    aws.text(
        "cloudwatch", "put-metric-alarm", "--alarm-name", name, "--namespace", name, "--metric-name", "m",
        "--statistic", "Maximum", "--period", "10", "--evaluation-periods", "1", "--threshold", "3",
        "--comparison-operator", "GreaterThanThreshold",
    )  # fmt: skip
    alarm = aws.json("cloudwatch", "describe-alarms", "--alarm-names", name)["MetricAlarms"][0]
    assert alarm["Threshold"] == 3.0

    aws.text("logs", "create-log-group", "--log-group-name", name)
    aws.text("logs", "create-log-stream", "--log-group-name", name, "--log-stream-name", "s")
    stream = ("--log-group-name", name, "--log-stream-name", "s")
    event = f"timestamp={int(time.time() * 1000)},message=a line"
    aws.json("logs", "put-log-events", *stream, "--log-events", event)
    assert aws.json("logs", "get-log-events", *stream)["events"][0]["message"] == "a line"

    queue = aws.json("sqs", "create-queue", "--queue-name", name)["QueueUrl"]
    arn = f"arn:aws:sqs:us-east-1:123456789012:{name}"
    pattern = json.dumps({"source": [name]})
    aws.json("events", "put-rule", "--name", name, "--event-pattern", pattern)
    aws.json("events", "put-targets", "--rule", name, "--targets", f"Id=1,Arn={arn}")
    sent = [{"Source": name, "DetailType": "T", "Detail": json.dumps({"a": 1})}]
    aws.json("events", "put-events", "--entries", json.dumps(sent))
    received = eventually(lambda: aws.json("sqs", "receive-message", "--queue-url", queue))
    assert json.loads(received["Messages"][0]["Body"])["detail"] == {"a": 1}


def test_what_is_not_supported_says_so(aws: Cli) -> None:
    refused = aws.run("sagemaker", "list-notebook-instances")
    assert refused.returncode != 0
    assert "sagemaker:ListNotebookInstances is not supported by local_aws" in refused.stderr
