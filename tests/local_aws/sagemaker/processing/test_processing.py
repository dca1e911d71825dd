"""Processing jobs through boto3: inputs shared among hosts, outputs uploaded, ends explained."""

from __future__ import annotations

import json

import pytest
from botocore.exceptions import ClientError

from tests.local_aws.cloud import Cloud, eventually
from tests.local_aws.processing import ended, request, run, s3_input, s3_output

GROUP = "/aws/sagemaker/ProcessingJobs"


@pytest.fixture(scope="module")
def bucket(cloud: Cloud) -> str:
    name = cloud.bucket()
    for index in range(4):
        cloud.s3.put_object(Bucket=name, Key=f"data/{index}.bin", Body=b"x")
    manifest = [{"prefix": f"s3://{name}/data/"}, *(f"{index}.bin" for index in range(4))]
    cloud.s3.put_object(Bucket=name, Key="list.manifest", Body=json.dumps(manifest).encode())
    return name


def test_hosts_share_the_inputs_and_all_outputs_are_kept(cloud: Cloud, bucket: str) -> None:
    source = """
import json, os, sys
host = os.environ["SM_CURRENT_HOST"]
files = sorted(os.listdir("/opt/ml/processing/input/data"))
config = json.load(open("/opt/ml/config/resourceconfig.json"))
print("lines", host, sys.argv[1:])
json.dump([files, config["hosts"]], open("/opt/ml/processing/output/result/%s.json" % host, "w"))
"""
    wanted = request(cloud, bucket, source, hosts=2)
    job = run(cloud, wanted)
    assert job["ProcessingJobStatus"] == "Completed", job.get("FailureReason")
    found = {
        host: json.loads(cloud.s3.get_object(Bucket=bucket, Key=f"result/{host}.json")["Body"].read())
        for host in ("algo-1", "algo-2")
    }
    assert found == {
        "algo-1": [["0.bin", "2.bin"], ["algo-1", "algo-2"]],
        "algo-2": [["1.bin", "3.bin"], ["algo-1", "algo-2"]],
    }
    assert "lines algo-2 ['--flag', '1']" in cloud.log_of(job["ProcessingJobName"], GROUP)
    assert job["ProcessingEndTime"] >= job["ProcessingStartTime"] >= job["CreationTime"]
    names = [
        summary["ProcessingJobName"]
        for summary in cloud.sagemaker.list_processing_jobs(NameContains=job["ProcessingJobName"])[
            "ProcessingJobSummaries"
        ]
    ]
    assert names == [job["ProcessingJobName"]]


def test_failure_says_why(cloud: Cloud, bucket: str) -> None:
    source = "open('/opt/ml/output/message', 'w').write('half done'); raise KeyError('missing column')"
    job = run(cloud, request(cloud, bucket, source))
    assert job["ProcessingJobStatus"] == "Failed"
    assert "KeyError: 'missing column'" in job["FailureReason"]
    assert job["FailureReason"].endswith("exit code: 1")
    assert job["ExitMessage"] == "half done"


def test_continuous_outputs_appear_while_the_job_runs(cloud: Cloud, bucket: str) -> None:
    source = "import time; open('/opt/ml/processing/output/live/a', 'w').write('1'); time.sleep(600)"
    outputs = {"Outputs": [s3_output("live", f"s3://{bucket}/live", "Continuous")]}
    wanted = request(cloud, bucket, source, ProcessingOutputConfig=outputs)
    cloud.sagemaker.create_processing_job(**wanted)
    eventually(lambda: cloud.s3.list_objects_v2(Bucket=bucket, Prefix="live/")["KeyCount"])
    cloud.sagemaker.stop_processing_job(ProcessingJobName=wanted["ProcessingJobName"])
    assert ended(cloud, wanted["ProcessingJobName"])["ProcessingJobStatus"] == "Stopped"
    with pytest.raises(
        ClientError, match="The request was rejected because the processing job is in status Stopped"
    ):
        cloud.sagemaker.stop_processing_job(ProcessingJobName=wanted["ProcessingJobName"])


def test_keys_that_would_leave_the_folder_are_refused(cloud: Cloud, bucket: str) -> None:
    manifest = [{"prefix": f"s3://{bucket}/"}, "../../../escaped"]
    cloud.s3.put_object(Bucket=bucket, Key="list.evil", Body=json.dumps(manifest).encode())
    job = run(
        cloud, request(cloud, bucket, "pass", ProcessingInputs=[s3_input("data", f"s3://{bucket}/list.evil")])
    )
    assert job["FailureReason"].startswith("ClientError: Data download failed:the key '../../../escaped'")


def test_duplicates_unknown_names_and_paths_outside(cloud: Cloud, bucket: str) -> None:
    wanted = request(cloud, bucket, "pass")
    run(cloud, wanted)
    with pytest.raises(
        ClientError, match="Job name must be unique within an AWS account and region"
    ) as caught:
        cloud.sagemaker.create_processing_job(**wanted)
    assert caught.value.response["Error"]["Code"] == "ResourceInUse"
    with pytest.raises(ClientError, match="Could not find requested job with name: absent") as caught:
        cloud.sagemaker.describe_processing_job(ProcessingJobName="absent")
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    outside = request(cloud, bucket, "pass")
    outside["ProcessingInputs"][0]["S3Input"]["LocalPath"] = "/etc"
    with pytest.raises(ClientError, match="must be an absolute path under /opt/ml/processing/"):
        cloud.sagemaker.create_processing_job(**outside)
