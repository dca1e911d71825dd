"""What is left after kill -9, stop and start: objects, records, queues, roles; and truthful ends of what was
running.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import psutil
import pytest
from botocore.exceptions import ClientError

from tests.local_aws.conftest import Cloud, eventually, training_request, unique
from tests.local_aws.test_training import SLEEPER, SPOT, artefact

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
    tuning = cloud.sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=tuned)
    assert tuning["HyperParameterTuningJobStatus"] == "Failed"
    assert tuning["TrainingJobStatusCounters"]["InProgress"] == 0
    # The name is taken, as on AWS; a new one runs.
    with pytest.raises(ClientError, match="already exists"):
        cloud.sagemaker.create_training_job(**training_request(killed, bucket, code))


@pytest.mark.slow
def test_a_spot_job_resumes_after_kill(own_cloud: Start) -> None:
    cloud = own_cloud()
    bucket, name = cloud.bucket(), unique("spot")
    request = training_request(name, bucket, cloud.put_code(bucket, train=SPOT))
    request["EnableManagedSpotTraining"] = True
    request["StoppingCondition"] = {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 120}
    request["CheckpointConfig"] = {"S3Uri": f"s3://{bucket}/checkpoints"}
    cloud.sagemaker.create_training_job(**request)
    eventually(lambda: cloud.s3.list_objects_v2(Bucket=bucket, Prefix="checkpoints/")["KeyCount"])
    cloud.kill()
    cloud.start()
    job = cloud.training_ended(name)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert artefact(cloud, job["ModelArtifacts"]["S3ModelArtifacts"]) == {"from": b"half"}
    assert "Interrupted" in [transition["Status"] for transition in job["SecondaryStatusTransitions"]]


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
