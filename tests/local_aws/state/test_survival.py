"""State after kill -9, stop and start: objects, records, queues, roles, and truthful ends of running jobs."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from botocore.exceptions import ClientError

from tests.local_aws.cloud import Cloud, eventually, training_request, unique
from tests.local_aws.processing import request as processing_request
from tests.local_aws.serving import Deployment
from tests.local_aws.training import SLEEPER, SPOT, artifact
from tests.local_aws.tuning import SCORE
from tests.local_aws.tuning import ended as tuning_ended
from tests.local_aws.tuning import request as tuning_request
from tests.local_aws.tuning import trials as tuning_trials

Start = Callable[..., Cloud]


def job_processes(cloud: Cloud) -> list[psutil.Process]:
    """Processes that carry the mark of this state folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(cloud.state) in process.environ().get("LOCAL_AWS_GROUP", ""):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def test_everything_acknowledged_survives_kill(own_cloud: Start) -> None:
    cloud = own_cloud("--cores", "4")
    bucket = cloud.bucket()
    code = cloud.put_code(bucket, train="print('done')")
    done = unique("done")
    cloud.sagemaker.create_training_job(**training_request(done, bucket, code))
    before = cloud.training_ended(done)
    cloud.s3.put_object(Bucket=bucket, Key="kept", Body=b"bytes")
    cloud.client("iam").create_role(RoleName="kept", AssumeRolePolicyDocument="{}")
    queue = cloud.client("sqs").create_queue(QueueName="kept")["QueueUrl"]
    cloud.client("sqs").send_message(QueueUrl=queue, MessageBody="kept")
    parameter = {"Name": "/kept", "Value": "1", "Type": "String"}
    cloud.client("ssm").put_parameter(**parameter)

    cloud.kill()
    cloud.start()
    after = cloud.sagemaker.describe_training_job(TrainingJobName=done)
    assert {**after, "ResponseMetadata": None} == {**before, "ResponseMetadata": None}
    assert "done" in cloud.log_of(done)
    assert cloud.s3.get_object(Bucket=bucket, Key="kept")["Body"].read() == b"bytes"
    assert [role["RoleName"] for role in cloud.client("iam").list_roles()["Roles"]] == ["kept"]
    queue = cloud.client("sqs").get_queue_url(QueueName="kept")["QueueUrl"]
    assert cloud.client("sqs").receive_message(QueueUrl=queue)["Messages"][0]["Body"] == "kept"
    assert cloud.client("ssm").get_parameter(Name="/kept")["Parameter"]["Value"] == "1"


@pytest.mark.slow
def test_jobs_that_were_running_get_a_truthful_end_and_no_process_is_left(own_cloud: Start) -> None:
    cloud = own_cloud("--cores", "4")
    bucket = cloud.bucket()
    code = cloud.put_code(bucket, train=SLEEPER)
    killed, tuned = unique("killed"), unique("tuned")
    cloud.sagemaker.create_training_job(**training_request(killed, bucket, code))
    job = training_request("x", bucket, code)
    del job["TrainingJobName"]
    job["StaticHyperParameters"] = job.pop("HyperParameters")
    job["AlgorithmSpecification"]["MetricDefinitions"] = [{"Name": "m", "Regex": "m=(.*)"}]
    cloud.sagemaker.create_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=tuned,
        HyperParameterTuningJobConfig={
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "m"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 2, "MaxParallelTrainingJobs": 2},
            "ParameterRanges": {
                "ContinuousParameterRanges": [{"Name": "rate", "MinValue": "0", "MaxValue": "1"}]
            },
        },
        TrainingJobDefinition=job,
    )
    eventually(lambda: "running" in cloud.log_of(killed))
    assert job_processes(cloud)
    cloud.kill()
    eventually(lambda: not job_processes(cloud))
    cloud.start()
    end = cloud.training_ended(killed)
    assert end["TrainingJobStatus"] == "Failed"
    assert end["FailureReason"].startswith("InternalServerError: local_aws ended while the job ran")

    # The search goes on, as on AWS: its lost trials are tried again.
    def search() -> Any:
        return cloud.sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=tuned)

    eventually(lambda: search()["TrainingJobStatusCounters"]["InProgress"] == 2)
    assert search()["TrainingJobStatusCounters"]["RetryableError"] == 2
    cloud.sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=tuned)
    eventually(lambda: search()["HyperParameterTuningJobStatus"] == "Stopped")
    # The name is taken, as on AWS; a new one runs.
    with pytest.raises(ClientError, match="already exists"):
        cloud.sagemaker.create_training_job(**training_request(killed, bucket, code))


SLOW_SCORE = """
import argparse, time
parser = argparse.ArgumentParser(); parser.add_argument("--rate", type=float); options = parser.parse_args()
print("score=%.6f" % options.rate, flush=True)
time.sleep(1)
"""


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["Random", "Bayesian"])
def test_a_search_goes_on_after_kill(own_cloud: Start, strategy: str) -> None:
    cloud = own_cloud("--cores", "4")
    limits = {"MaxNumberOfTrainingJobs": 6, "MaxParallelTrainingJobs": 2}
    tuning = tuning_request(cloud, SLOW_SCORE, Strategy=strategy, RandomSeed=5, ResourceLimits=limits)
    name = tuning["HyperParameterTuningJobName"]
    cloud.sagemaker.create_hyper_parameter_tuning_job(**tuning)

    def by_status(status: str) -> list[Any]:
        return tuning_trials(cloud, name, StatusEquals=status)

    eventually(lambda: len(by_status("Completed")) >= 2 and by_status("InProgress"))
    cloud.kill()
    eventually(lambda: not job_processes(cloud))
    cloud.start()
    job = tuning_ended(cloud, name)
    assert job["HyperParameterTuningJobStatus"] == "Completed", job["FailureReason"]
    counters = job["TrainingJobStatusCounters"]
    lost = counters["RetryableError"]
    assert 1 <= lost <= 2
    assert counters == {
        "Completed": 6, "InProgress": 0, "RetryableError": lost, "NonRetryableError": 0, "Stopped": 0,
    }  # fmt: skip
    assert job["ObjectiveStatusCounters"] == {"Succeeded": 6, "Pending": 0, "Failed": lost}
    for trial in by_status("Failed"):
        assert trial["FailureReason"].startswith("InternalServerError: local_aws ended while the job ran")
    points = {trial["TunedHyperParameters"]["rate"] for trial in by_status("Completed")}
    assert len(points) == 6
    assert float(job["BestTrainingJob"]["TunedHyperParameters"]["rate"]) == max(map(float, points))
    if strategy == "Random":
        again = tuning_request(cloud, SCORE, RandomSeed=5, ResourceLimits=limits)
        cloud.sagemaker.create_hyper_parameter_tuning_job(**again)
        tuning_ended(cloud, again["HyperParameterTuningJobName"])
        other = tuning_trials(cloud, again["HyperParameterTuningJobName"])
        assert {trial["TunedHyperParameters"]["rate"] for trial in other} == points


@pytest.mark.slow
def test_processing_and_transform_jobs_end_truthfully_and_endpoints_come_back(own_cloud: Start) -> None:
    cloud = own_cloud("--cores", "4")
    processing = processing_request(
        cloud, cloud.bucket(), SLEEPER.replace("SM_MODEL_DIR", "HOME"), ProcessingInputs=[]
    )
    cloud.sagemaker.create_processing_job(**processing)
    name = processing["ProcessingJobName"]
    eventually(lambda: "running" in cloud.log_of(name, "/aws/sagemaker/ProcessingJobs"))
    deployment = Deployment(cloud)
    deployment.deploy("one")
    before = deployment.ask()
    cloud.s3.put_object(Bucket=deployment.bucket, Key="in/a", Body=b"slow")
    transform = unique("transform")
    location = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{deployment.bucket}/in/"}}
    cloud.sagemaker.create_transform_job(
        TransformJobName=transform,
        ModelName=deployment.model("one"),
        TransformInput={"DataSource": location},
        TransformOutput={"S3OutputPath": f"s3://{deployment.bucket}/out"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
    )
    eventually(
        lambda: any("invoked" in line for line in cloud.log_of(transform, "/aws/sagemaker/TransformJobs"))
    )
    cloud.kill()
    eventually(lambda: not job_processes(cloud))
    cloud.start()
    for found, status in (
        (cloud.sagemaker.describe_processing_job(ProcessingJobName=name), "ProcessingJobStatus"),
        (cloud.sagemaker.describe_transform_job(TransformJobName=transform), "TransformJobStatus"),
    ):
        assert found[status] == "Failed"
        assert found["FailureReason"].startswith("InternalServerError: local_aws ended while the job ran")
    deployment.runtime = cloud.client("sagemaker-runtime")
    assert deployment.settled()["EndpointStatus"] == "InService"
    after = deployment.ask()
    assert after["version"] == "one"
    assert after["process"] != before["process"]


@pytest.mark.slow
@pytest.mark.parametrize("secondary", ["Interrupted", "Restarting"])
def test_a_spot_job_and_one_that_may_be_retried_resume_after_kill(own_cloud: Start, secondary: str) -> None:
    cloud = own_cloud()
    bucket, name = cloud.bucket(), unique("spot")
    request = training_request(name, bucket, cloud.put_code(bucket, train=SPOT))
    if secondary == "Interrupted":
        request["EnableManagedSpotTraining"] = True
        request["StoppingCondition"] = {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 120}
    else:
        request["RetryStrategy"] = {"MaximumRetryAttempts": 1}
    request["CheckpointConfig"] = {"S3Uri": f"s3://{bucket}/checkpoints"}
    cloud.sagemaker.create_training_job(**request)
    eventually(lambda: cloud.s3.list_objects_v2(Bucket=bucket, Prefix="checkpoints/")["KeyCount"])
    cloud.kill()
    cloud.start()
    job = cloud.training_ended(name)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert artifact(cloud, job["ModelArtifacts"]["S3ModelArtifacts"]) == {"from": b"half"}
    assert secondary in [transition["Status"] for transition in job["SecondaryStatusTransitions"]]


def test_stop_leaves_no_process(own_cloud: Start) -> None:
    cloud = own_cloud()
    bucket, name = cloud.bucket(), unique("left")
    cloud.sagemaker.create_training_job(
        **training_request(name, bucket, cloud.put_code(bucket, train=SLEEPER))
    )
    eventually(lambda: "running" in cloud.log_of(name))
    cloud.stop()
    assert job_processes(cloud) == []
    assert not os.path.exists(cloud.state / "pid")


@pytest.mark.slow
def test_a_change_of_an_endpoint_goes_on_after_kill_and_leaves_no_files(own_cloud: Start) -> None:
    cloud = own_cloud("--cores", "4")
    deployment = Deployment(cloud)
    deployment.deploy("one")
    folder = cloud.state / "endpoints" / "us-east-1" / deployment.endpoint
    (folder / "half-made").mkdir()  # as of an update that was rolling back
    two = [{"VariantName": "v0", "DesiredInstanceCount": 2}]
    cloud.sagemaker.update_endpoint_weights_and_capacities(
        EndpointName=deployment.endpoint, DesiredWeightsAndCapacities=two
    )
    cloud.kill()
    cloud.start()
    deployment.runtime = cloud.client("sagemaker-runtime")
    variant = deployment.settled()["ProductionVariants"][0]
    assert (variant["DesiredInstanceCount"], variant["CurrentInstanceCount"]) == (2, 2)
    assert deployment.ask()["version"] == "one"
    assert len(list(folder.iterdir())) == 1
    cloud.sagemaker.delete_endpoint(EndpointName=deployment.endpoint)
    eventually(lambda: not cloud.sagemaker.list_endpoints()["Endpoints"])
    assert not folder.exists()
