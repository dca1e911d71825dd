"""Requests of processing jobs."""

from __future__ import annotations

from typing import Any

from tests.local_aws.cloud import ENDED, ROLE, TRAINING_IMAGE, Cloud, eventually, unique


def request(cloud: Cloud, bucket: str, source: str, hosts: int = 1, **more: Any) -> dict[str, Any]:
    code = unique("code")
    cloud.s3.put_object(Bucket=bucket, Key=f"{code}/run.py", Body=source.encode())
    inputs = more.pop("ProcessingInputs", [s3_input("data", f"s3://{bucket}/list.manifest", sharded=True)])
    return {
        "ProcessingJobName": unique("processing"),
        "RoleArn": ROLE,
        "AppSpecification": {
            "ImageUri": TRAINING_IMAGE,
            "ContainerEntrypoint": ["python3", "/opt/ml/processing/input/code/run.py"],
            "ContainerArguments": ["--flag", "1"],
        },
        "ProcessingResources": {
            "ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": hosts, "VolumeSizeInGB": 1}
        },
        "ProcessingInputs": [*inputs, s3_input("code", f"s3://{bucket}/{code}/", kind="S3Prefix")],
        "ProcessingOutputConfig": {"Outputs": [s3_output("result", f"s3://{bucket}/result")]},
        **more,
    }


def s3_input(name: str, uri: str, sharded: bool = False, kind: str = "ManifestFile") -> dict[str, Any]:
    return {
        "InputName": name,
        "S3Input": {
            "S3Uri": uri,
            "LocalPath": f"/opt/ml/processing/input/{name}",
            "S3DataType": kind,
            "S3InputMode": "File",
            "S3DataDistributionType": "ShardedByS3Key" if sharded else "FullyReplicated",
        },
    }


def s3_output(name: str, uri: str, mode: str = "EndOfJob") -> dict[str, Any]:
    local = f"/opt/ml/processing/output/{name}"
    return {"OutputName": name, "S3Output": {"S3Uri": uri, "LocalPath": local, "S3UploadMode": mode}}


def run(cloud: Cloud, wanted: dict[str, Any]) -> dict[str, Any]:
    cloud.sagemaker.create_processing_job(**wanted)
    return ended(cloud, wanted["ProcessingJobName"])


def ended(cloud: Cloud, name: str) -> dict[str, Any]:
    def look() -> Any:
        job = cloud.sagemaker.describe_processing_job(ProcessingJobName=name)
        return job if job["ProcessingJobStatus"] in ENDED else None

    return dict(eventually(look))
