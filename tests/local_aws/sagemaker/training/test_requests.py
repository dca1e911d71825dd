"""Requests for training jobs: what is refused, and what lists show."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local_aws.cloud import (
    Cloud,
    channel,
    training_request,
    unique,
)


def _changed(**changes: Any) -> Any:
    return lambda request: request.update(changes)


def _pipe(request: dict[str, Any]) -> None:
    request["InputDataConfig"] = [{**channel("train", "s3://b/p"), "InputMode": "Pipe"}]


def _fast_manifest(request: dict[str, Any]) -> None:
    fast = {**channel("train", "s3://b/p"), "InputMode": "FastFile"}
    fast["DataSource"]["S3DataSource"]["S3DataType"] = "ManifestFile"
    request["InputDataConfig"] = [fast]


def _unknown_image(request: dict[str, Any]) -> None:
    request["AlgorithmSpecification"]["TrainingImage"] = (
        "123456789012.dkr.ecr.us-east-1.amazonaws.com/unknown:1"
    )


def _bad_regex(request: dict[str, Any]) -> None:
    request["AlgorithmSpecification"]["MetricDefinitions"] = [{"Name": "a", "Regex": "("}]


def _over_quota(request: dict[str, Any]) -> None:
    request["ResourceConfig"] |= {"InstanceType": "ml.p3.2xlarge", "InstanceCount": 2}


def _preferences(*counts: int | None, **resources: Any) -> Any:
    types = ("ml.m5.large", "ml.m5.xlarge")
    preferences = [
        {"InstanceType": name} if count is None else {"InstanceType": name, "InstanceCount": count}
        for name, count in zip(types, counts, strict=True)
    ]
    return _changed(ResourceConfig={"InstancePreferences": preferences, "VolumeSizeInGB": 1, **resources})


def _spot_preferences(request: dict[str, Any]) -> None:
    _preferences(1, 1)(request)
    stopping = {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 90}
    request |= {"EnableManagedSpotTraining": True, "StoppingCondition": stopping}


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (_changed(TrainingJobName="bad_name!"), "ValidationException",
         "1 validation error detected: Value 'bad_name!' at 'trainingJobName' failed to satisfy constraint: "),
        (_changed(StoppingCondition={"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 90}),
         "ValidationException", "MaxWaitTimeInSeconds"),
        (_changed(EnableManagedSpotTraining=True), "ValidationException",
         "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds"),
        (_preferences(1, 1, InstanceType="ml.m5.large"), "ValidationException", "together with InstanceType"),
        (_preferences(1, None), "ValidationException", "Give InstanceCount for every one"),
        (_preferences(1, 1, InstanceCount=1), "ValidationException", "Give InstanceCount for every one"),
        (_spot_preferences, "ValidationException", "together with EnableManagedSpotTraining"),
        (_pipe, "ValidationException", "Pipe input mode is not supported"),
        (_fast_manifest, "ValidationException", "FastFile input mode reads S3Prefix only"),
        (_unknown_image, "ValidationException", "local_aws does not know the image"),
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
    oldest = cloud.sagemaker.list_training_jobs(NameContains=prefix, MaxResults=1)["TrainingJobSummaries"]
    # SortOrder is Ascending unless given (API reference, ListTrainingJobs).
    assert [job["TrainingJobName"] for job in oldest] == [names[0]]
    assert (
        cloud.sagemaker.list_training_jobs(NameContains=prefix, StatusEquals="Failed")["TrainingJobSummaries"]
        == []
    )
