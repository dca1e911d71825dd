"""Requests that AWS refuses at the call, and ones that it takes: data that are absent, counts, addresses, orders."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local_aws.sagemaker.s3_data import DataError, model_uri
from tests.local_aws.cloud import ROLE, Cloud, channel, training_request, unique
from tests.local_aws.serving import SERVING_IMAGE, Deployment, pack
from tests.local_aws.transform import doubler


def refusal(call: Callable[..., Any], **request: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**request)
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    return str(caught.value.response["Error"]["Message"])


def test_a_channel_without_objects(cloud: Cloud, bucket: str) -> None:
    request = training_request(unique("empty"), bucket, cloud.put_code(bucket, train="pass"))
    request["InputDataConfig"] = [channel("train", f"s3://{bucket}/nothing/")]
    message = refusal(cloud.sagemaker.create_training_job, **request)
    assert message.startswith(f'No S3 objects found under S3 URL "s3://{bucket}/nothing/"')
    assert "(us-east-1)" in message
    assert ROLE in message
    with pytest.raises(ClientError):
        cloud.sagemaker.describe_training_job(TrainingJobName=request["TrainingJobName"])
    request["InputDataConfig"] = [channel("train", f"s3://{unique('absent')}/x")]
    assert "No S3 objects found" in refusal(cloud.sagemaker.create_training_job, **request)


def test_a_transform_without_objects(cloud: Cloud) -> None:
    bucket = cloud.bucket()
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/nothing/"}}
    message = refusal(
        cloud.sagemaker.create_transform_job,
        TransformJobName=unique("empty"),
        ModelName=doubler(cloud),
        TransformInput={"DataSource": source},
        TransformOutput={"S3OutputPath": f"s3://{bucket}/out"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
    )
    assert "No S3 objects found" in message


@pytest.mark.parametrize("groups", [False, True])
def test_no_instances(cloud: Cloud, bucket: str, groups: bool) -> None:
    request = training_request(unique("none"), bucket, cloud.put_code(bucket, train="pass"))
    resources = request["ResourceConfig"]
    if groups:
        group = {"InstanceType": resources.pop("InstanceType"), "InstanceCount": 0, "InstanceGroupName": "a"}
        del resources["InstanceCount"]
        resources["InstanceGroups"] = [group]
    else:
        resources["InstanceCount"] = 0
    assert "must be at least 1" in refusal(cloud.sagemaker.create_training_job, **request)


def test_model_data_that_are_not_there(cloud: Cloud) -> None:
    url = f"s3://{cloud.bucket()}/no/such/model.tar.gz"
    message = refusal(
        cloud.sagemaker.create_model,
        ModelName=unique("absent"),
        ExecutionRoleArn=ROLE,
        PrimaryContainer={"Image": SERVING_IMAGE, "ModelDataUrl": url},
    )
    assert message == f"Could not find model data at {url}."


def test_model_data_at_an_https_address(cloud: Cloud) -> None:
    deployment = Deployment(cloud)
    cloud.s3.put_object(Bucket=deployment.bucket, Key="a b/model.tar.gz", Body=pack("v1"))
    name = unique("https")
    url = f"https://s3.us-east-1.amazonaws.com/{deployment.bucket}/a%20b/model.tar.gz"
    container = {"Image": SERVING_IMAGE, "ModelDataUrl": url}
    cloud.sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
    variant = {
        "VariantName": "v0",
        "ModelName": name,
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    cloud.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    cloud.sagemaker.create_endpoint(EndpointName=deployment.endpoint, EndpointConfigName=name)
    assert deployment.settled()["EndpointStatus"] == "InService"
    assert deployment.ask()["version"] == "v1"
    deployment.delete()


@pytest.mark.parametrize(
    "url",
    [
        "https://b.s3.amazonaws.com/k/m",
        "https://b.s3.eu-west-1.amazonaws.com/k/m",
        "https://b.s3-eu-west-1.amazonaws.com/k/m",
        "https://s3.amazonaws.com/b/k/m",
        "https://s3.cn-north-1.amazonaws.com.cn/b/k/m",
        "s3://b/k/m",
    ],
)
def test_addresses_of_model_data(url: str) -> None:
    assert model_uri(url) == "s3://b/k/m"


@pytest.mark.parametrize("url", ["https://example.com/b/k", "https://b.s3.amazonaws.com/", "ftp://b/k"])
def test_addresses_outside_s3(url: str) -> None:
    with pytest.raises(DataError):
        model_uri(url)


def test_memory_of_serverless_variants(cloud: Cloud) -> None:
    name = doubler(cloud)
    variant = {
        "VariantName": "v0",
        "ModelName": name,
        "ServerlessConfig": {"MemorySizeInMB": 1500, "MaxConcurrency": 1},
    }
    create = cloud.sagemaker.create_endpoint_config
    message = refusal(create, EndpointConfigName=unique("c"), ProductionVariants=[variant])
    assert "1024, 2048, 3072, 4096, 5120, 6144" in message


def test_default_orders_of_lists(own_cloud: Callable[..., Cloud]) -> None:
    cloud = own_cloud("--cores", "2")
    sagemaker = cloud.sagemaker
    for name in ("second", "first"):
        sagemaker.create_model_package_group(ModelPackageGroupName=name)
    groups = sagemaker.list_model_package_groups()["ModelPackageGroupSummaryList"]
    assert [group["ModelPackageGroupName"] for group in groups] == ["second", "first"]
    bucket = cloud.bucket()
    cloud.s3.put_object(Bucket=bucket, Key="model.tar.gz", Body=pack("v1"))
    container = {"Image": SERVING_IMAGE, "ModelDataUrl": f"s3://{bucket}/model.tar.gz"}
    for name in ("second", "first"):
        sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
    assert [model["ModelName"] for model in sagemaker.list_models()["Models"]] == ["first", "second"]
    code = cloud.put_code(bucket, train="pass")
    for name in ("second", "first"):
        sagemaker.create_training_job(**training_request(name, bucket, code))
        cloud.training_ended(name)
    jobs = sagemaker.list_training_jobs()["TrainingJobSummaries"]
    assert [job["TrainingJobName"] for job in jobs] == ["second", "first"]


def test_a_shell_script_without_its_x_bit(cloud: Cloud, bucket: str) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo("train.sh")
        source = b'#!/bin/sh\necho "arguments: $*"\n'
        member.size, member.mode = len(source), 0o644
        tar.addfile(member, io.BytesIO(source))
    cloud.s3.put_object(Bucket=bucket, Key="sh.tar.gz", Body=packed.getvalue())
    request = training_request(unique("shell"), bucket, f"s3://{bucket}/sh.tar.gz", rate=0.1)
    request["HyperParameters"]["sagemaker_program"] = "train.sh"
    cloud.sagemaker.create_training_job(**request)
    ended = cloud.training_ended(request["TrainingJobName"])
    assert ended["TrainingJobStatus"] == "Completed", ended.get("FailureReason")
    assert "arguments: --rate 0.1" in cloud.log_of(request["TrainingJobName"])
