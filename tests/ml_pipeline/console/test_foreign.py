"""Things in the AWS account that the pipeline did not make, or that someone deleted: the pages show the rest."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.ml_pipeline.console.conftest import BUCKET, Console, put, serve

TYPES = {"SupportedContentTypes": ["image/jpeg"], "SupportedResponseMIMETypes": ["application/json"]}
UNCOMPRESSED = {
    "S3DataSource": {
        "S3Uri": f"s3://{BUCKET}/llm/",
        "S3DataType": "S3Prefix",
        "CompressionType": "None",
    }
}
PACKAGES: dict[str, Any] = {
    "uncompressed": {
        "InferenceSpecification": {"Containers": [{"Image": "i", "ModelDataSource": UNCOMPRESSED}], **TYPES}
    },
    "address": {
        "InferenceSpecification": {
            "Containers": [{"Image": "i", "ModelDataUrl": "https://b.s3.amazonaws.com/model.tar.gz"}],
            **TYPES,
        }
    },
    "no inference": {},
}


@pytest.mark.parametrize("kind", PACKAGES)
@pytest.mark.parametrize("group", ["dogs", "llm"])
def test_a_package_of_others_hides_neither_models_nor_endpoints(
    console: Console, kind: str, group: str
) -> None:
    serve(console, 2)
    sagemaker = console.store.client("sagemaker")
    if group != "dogs":
        sagemaker.create_model_package_group(ModelPackageGroupName=group)
    made = sagemaker.create_model_package(
        ModelPackageGroupName=group, ModelApprovalStatus="Approved", **PACKAGES[kind]
    )
    assert made["ModelPackageArn"]
    found = console.get("models/versions", group="dogs").json()["versions"]
    assert [version["version"] for version in found] == [2, 1]
    assert console.get("endpoints/one", name="photos").json()["versions"] == [{"group": "dogs", "version": 2}]


@pytest.mark.parametrize("deleted", ["model", "config"])
def test_an_endpoint_outlives_its_model_and_its_config(console: Console, deleted: str) -> None:
    serve(console, 2)
    serve(console, 1, "orphan")
    sagemaker = console.store.client("sagemaker")
    if deleted == "model":
        sagemaker.delete_model(ModelName="orphan")
    else:
        sagemaker.delete_endpoint_config(EndpointConfigName="orphan")
    found = console.get("models/versions", group="dogs").json()["versions"]
    assert [version["endpoints"] for version in found] == [["photos"], []]
    page = console.get("endpoints/one", name="orphan").json()
    assert (page["name"], page["usd_per_hour"] is None) == ("orphan", deleted == "config")


def captured(console: Console, bucket: str) -> dict[str, Any]:
    """The page of an endpoint, on the requests that it keeps."""
    serve(console, 2)
    sagemaker = console.store.client("sagemaker")
    sagemaker.create_endpoint_config(
        EndpointConfigName="kept",
        ProductionVariants=[
            {
                "VariantName": "v", "ModelName": "photos", "InitialInstanceCount": 1,
                "InstanceType": "ml.m5.large", "InitialVariantWeight": 1.0,
            }
        ],
        DataCaptureConfig={
            "EnableCapture": True, "InitialSamplingPercentage": 20, "DestinationS3Uri": f"s3://{bucket}/c",
            "CaptureOptions": [{"CaptureMode": "Input"}],
        },
    )  # fmt: skip
    sagemaker.create_endpoint(EndpointName="kept", EndpointConfigName="kept")
    found: dict[str, Any] = console.get("endpoints/one", name="kept").json()["capture"]
    return found


def test_captures_of_a_busy_endpoint_are_all_counted(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "2")  # of a page; S3 has 1000
    for number in range(5):
        put(console.store.client("s3"), f"c/kept/v/9999/01/01/00/{number}.jsonl", b"")
    put(console.store.client("s3"), "c/kept/v/2020/01/01/00/old.jsonl", b"")
    assert captured(console, BUCKET) == {"percent": 20, "uri": f"s3://{BUCKET}/c/kept/v/", "files": 5}


def test_captures_out_of_reach_leave_the_rest_of_the_page(console: Console) -> None:
    assert captured(console, "someone-elses")["files"] is None
    with pytest.raises(ClientError):
        boto3.client("s3").list_objects_v2(Bucket="someone-elses")
