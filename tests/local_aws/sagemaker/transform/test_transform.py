"""Transform jobs through boto3: a toy server, files cut into records, answers assembled and joined."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local_aws.cloud import ENDED, Cloud, eventually, unique
from tests.local_aws.transform import doubler


@pytest.fixture(scope="module")
def model(cloud: Cloud) -> str:
    return doubler(cloud)


def run(
    cloud: Cloud,
    model: str,
    files: dict[str, str],
    source: dict[str, Any],
    target: dict[str, Any],
    **more: Any,
) -> Any:
    bucket, name = cloud.bucket(), unique("transform")
    for key, text in files.items():
        cloud.s3.put_object(Bucket=bucket, Key=f"in/{key}", Body=text.encode())
    location = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/in/"}}
    cloud.sagemaker.create_transform_job(
        TransformJobName=name,
        ModelName=model,
        TransformInput={"DataSource": location, **source},
        TransformOutput={"S3OutputPath": f"s3://{bucket}/out", **target},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
        **more,
    )

    def look() -> Any:
        job = cloud.sagemaker.describe_transform_job(TransformJobName=name)
        return job if job["TransformJobStatus"] in ENDED else None

    job = eventually(look)
    listed = cloud.s3.list_objects_v2(Bucket=bucket, Prefix="out/").get("Contents", [])
    outputs = {
        entry["Key"][4:]: cloud.s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read().decode()
        for entry in listed
    }
    return job, outputs


def test_lines_are_batched_and_assembled_per_file(cloud: Cloud, model: str) -> None:
    job, outputs = run(
        cloud, model, {"a.csv": "1\n2\n3\n", "deep/b.csv": "4\n"},
        {"ContentType": "text/csv", "SplitType": "Line"}, {"AssembleWith": "Line"}, BatchStrategy="MultiRecord",
    )  # fmt: skip
    assert job["TransformJobStatus"] == "Completed", job.get("FailureReason")
    assert outputs == {"a.csv.out": "2.0\n4.0\n6.0\n", "deep/b.csv.out": "8.0\n"}
    assert "answered 3" in cloud.log_of(job["TransformJobName"], "/aws/sagemaker/TransformJobs")


def test_csv_input_is_filtered_joined_and_filtered_again(cloud: Cloud, model: str) -> None:
    job, outputs = run(
        cloud, model, {"a.csv": "id1,1\nid2,2\n"},
        {"ContentType": "text/csv", "SplitType": "Line"}, {"AssembleWith": "Line", "Accept": "text/csv"},
        DataProcessing={"InputFilter": "$[1:]", "JoinSource": "Input", "OutputFilter": "$[0,-1]"},
    )  # fmt: skip
    assert job["TransformJobStatus"] == "Completed", job.get("FailureReason")
    assert outputs == {"a.csv.out": "id1,2.0\nid2,4.0\n"}


def test_json_lines_are_joined_under_sagemaker_output(cloud: Cloud, model: str) -> None:
    _, outputs = run(
        cloud, model, {"a.jsonl": '{"x": 1}\n{"x": 5}\n'},
        {"ContentType": "application/jsonlines", "SplitType": "Line"}, {"AssembleWith": "Line"},
        DataProcessing={"JoinSource": "Input"}, BatchStrategy="SingleRecord",
    )  # fmt: skip
    assert [json.loads(line) for line in outputs["a.jsonl.out"].splitlines()] == [
        {"x": 1, "SageMakerOutput": {"twice": 2}},
        {"x": 5, "SageMakerOutput": {"twice": 10}},
    ]


def test_a_refused_record_fails_the_job_with_the_reason(cloud: Cloud, model: str) -> None:
    job, _ = run(cloud, model, {"a.csv": "bad"}, {"ContentType": "text/csv"}, {})
    assert job["TransformJobStatus"] == "Failed"
    assert "the primary container answered status 400: bad line" in job["FailureReason"]


def test_unknown_models_and_filters_are_refused(cloud: Cloud, model: str) -> None:
    with pytest.raises(ClientError, match="Could not find model"):
        run(cloud, "absent", {"a": "1"}, {}, {})
    with pytest.raises(ClientError, match="is not a JSONPath"):
        run(cloud, model, {"a": "1"}, {"ContentType": "text/csv"}, {}, DataProcessing={"InputFilter": "$[["})
