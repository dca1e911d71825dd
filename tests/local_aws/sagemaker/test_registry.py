"""Models, model package groups and packages, tags and Search, through boto3."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local_aws.cloud import ROLE, Cloud, eventually, unique

SERVING_IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/serving:1"
SPECIFICATION = {
    "Containers": [{"Image": SERVING_IMAGE, "ModelDataUrl": "s3://b/model.tar.gz"}],
    "SupportedContentTypes": ["image/jpeg"],
    "SupportedResponseMIMETypes": ["application/json"],
}


def error(call: Any, **params: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**params)
    return caught.value.response["Error"]["Code"], caught.value.response["Error"]["Message"]


def package(cloud: Cloud, group: str, **more: Any) -> str:
    created = cloud.sagemaker.create_model_package(
        ModelPackageGroupName=group, InferenceSpecification=SPECIFICATION, **more
    )
    return str(created["ModelPackageArn"])


def test_versions_of_a_group_approval_and_metadata(cloud: Cloud) -> None:
    group = unique("group")
    cloud.sagemaker.create_model_package_group(
        ModelPackageGroupName=group, ModelPackageGroupDescription="dogs"
    )
    code, message = error(cloud.sagemaker.create_model_package_group, ModelPackageGroupName=group)
    assert code == "ValidationException"
    assert message.startswith("Model Package Group already exists")

    first = package(cloud, group, CustomerMetadataProperties={"dataset": "v1"})
    second = package(cloud, group, ModelApprovalStatus="Approved")
    assert first.endswith(f":model-package/{group}/1")
    assert second.endswith(f":model-package/{group}/2")
    listed = cloud.sagemaker.list_model_packages(ModelPackageGroupName=group, ModelApprovalStatus="Approved")
    assert [entry["ModelPackageVersion"] for entry in listed["ModelPackageSummaryList"]] == [2]

    cloud.sagemaker.update_model_package(
        ModelPackageArn=first, ModelApprovalStatus="Rejected", ApprovalDescription="worse",
        CustomerMetadataProperties={"reason": "accuracy"}, CustomerMetadataPropertiesToRemove=["dataset"],
    )  # fmt: skip
    described = cloud.sagemaker.describe_model_package(ModelPackageName=first)
    assert described["ModelApprovalStatus"] == "Rejected"
    assert described["CustomerMetadataProperties"] == {"reason": "accuracy"}

    code, _ = error(cloud.sagemaker.delete_model_package_group, ModelPackageGroupName=group)
    assert code == "ConflictException"
    cloud.sagemaker.delete_model_package(ModelPackageName=second)
    third = package(cloud, group)
    assert third.endswith("/3"), "versions are never used again"
    for arn in (first, third):
        cloud.sagemaker.delete_model_package(ModelPackageName=arn)
    cloud.sagemaker.delete_model_package_group(ModelPackageGroupName=group)
    code, message = error(cloud.sagemaker.describe_model_package_group, ModelPackageGroupName=group)
    assert code == "ValidationException"
    assert message.endswith("does not exist.")


HERE = "arn:aws:sagemaker:us-east-1:123456789012"


@pytest.mark.parametrize("version", ["abc", "-1", "1.0", "", "1/2", "1234567890"])
def test_a_version_that_is_no_number_is_refused(cloud: Cloud, version: str) -> None:
    group = unique("group")
    cloud.sagemaker.create_model_package_group(ModelPackageGroupName=group)
    package(cloud, group)
    for call in (cloud.sagemaker.describe_model_package, cloud.sagemaker.delete_model_package):
        code, message = error(call, ModelPackageName=f"{group}/{version}")
        assert code == "ValidationException"
        assert "failed to satisfy constraint: Member must satisfy regular expression pattern" in message
    code, message = error(
        cloud.sagemaker.update_model_package, ModelPackageArn=f"{HERE}:model-package/{group}/{version}x"
    )
    assert (code, "does not exist" in message) == ("ValidationException", True)


@pytest.mark.parametrize("place", [
    "arn:aws:sagemaker:eu-west-1:123456789012", "arn:aws:sagemaker:us-east-1:999999999999",
])  # fmt: skip
def test_a_package_of_another_region_or_account_does_not_exist(cloud: Cloud, place: str) -> None:
    group = unique("group")
    cloud.sagemaker.create_model_package_group(ModelPackageGroupName=group)
    first = package(cloud, group, ModelApprovalStatus="Approved")
    foreign = f"{place}:model-package/{group}/1"
    expected = ("ValidationException", f"ModelPackage {foreign} does not exist.")
    assert error(cloud.sagemaker.describe_model_package, ModelPackageName=foreign) == expected
    assert error(cloud.sagemaker.delete_model_package, ModelPackageName=foreign) == expected
    assert error(cloud.sagemaker.update_model_package, ModelPackageArn=foreign) == expected
    container = {"ModelPackageName": foreign}
    request = {"ModelName": unique("model"), "ExecutionRoleArn": ROLE, "PrimaryContainer": container}
    assert error(cloud.sagemaker.create_model, **request) == expected
    group_there = f"{place}:model-package-group/{group}"
    listed = error(cloud.sagemaker.list_model_packages, ModelPackageGroupName=group_there)
    assert listed == ("ValidationException", f"ModelPackageGroup {group_there} does not exist.")
    for name in (first, f"{group}/1"):
        assert cloud.sagemaker.describe_model_package(ModelPackageName=name)["ModelPackageVersion"] == 1
    here = f"{HERE}:model-package-group/{group}"
    assert (
        len(cloud.sagemaker.list_model_packages(ModelPackageGroupName=here)["ModelPackageSummaryList"]) == 1
    )


def test_a_client_token_makes_creation_idempotent(cloud: Cloud) -> None:
    group = unique("group")
    cloud.sagemaker.create_model_package_group(ModelPackageGroupName=group)
    token = "a" * 36
    assert package(cloud, group, ClientToken=token) == package(cloud, group, ClientToken=token)


def test_models_and_their_errors(cloud: Cloud) -> None:
    name, bucket = unique("model"), cloud.bucket()
    cloud.s3.put_object(Bucket=bucket, Key="model.tar.gz", Body=b"read when it is deployed")
    request = {
        "ModelName": name,
        "ExecutionRoleArn": ROLE,
        "PrimaryContainer": {"Image": SERVING_IMAGE, "ModelDataUrl": f"s3://{bucket}/model.tar.gz"},
    }
    arn = cloud.sagemaker.create_model(**request, Tags=[{"Key": "a", "Value": "b"}])["ModelArn"]
    assert cloud.sagemaker.describe_model(ModelName=name)["ModelArn"] == arn
    assert error(cloud.sagemaker.create_model, **request) == (
        "ValidationException", f'Cannot create already existing model "{arn}".',
    )  # fmt: skip
    assert [m["ModelName"] for m in cloud.sagemaker.list_models(NameContains=name)["Models"]] == [name]
    cloud.sagemaker.delete_model(ModelName=name)
    code, message = error(cloud.sagemaker.describe_model, ModelName=name)
    assert (code, message) == ("ValidationException", f'Could not find model "{arn}".')
    code, message = error(
        cloud.sagemaker.create_model, **{**request, "PrimaryContainer": {"Image": "absent/knows:1"}}
    )
    assert code == "ValidationException"
    assert "absent/knows:1" in message


def test_tags_of_anything_by_arn(cloud: Cloud) -> None:
    group = unique("group")
    arn = cloud.sagemaker.create_model_package_group(
        ModelPackageGroupName=group, Tags=[{"Key": "a", "Value": "1"}]
    )["ModelPackageGroupArn"]
    cloud.sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "a", "Value": "2"}, {"Key": "b", "Value": "3"}])
    assert cloud.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [
        {"Key": "a", "Value": "2"}, {"Key": "b", "Value": "3"},
    ]  # fmt: skip
    cloud.sagemaker.delete_tags(ResourceArn=arn, TagKeys=["a"])
    assert cloud.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "b", "Value": "3"}]
    code, _ = error(cloud.sagemaker.list_tags, ResourceArn=arn + "-unknown")
    assert code == "ValidationException"


def test_search_by_tag_status_and_metadata(cloud: Cloud) -> None:
    group, run = unique("group"), unique("run")
    cloud.sagemaker.create_model_package_group(ModelPackageGroupName=group)
    arns = [
        package(cloud, group, ModelApprovalStatus=status, Tags=[{"Key": "run", "Value": run}])
        for status in ("Approved", "Rejected", "Approved")
    ]

    def found(*filters: dict[str, str], **more: Any) -> list[str]:
        answer = cloud.sagemaker.search(
            Resource="ModelPackage",
            SearchExpression={
                "Filters": [{"Name": "Tags.run", "Operator": "Equals", "Value": run}, *filters],
                **more,
            },
            SortBy="ModelPackageVersion",
            SortOrder="Ascending",
        )
        return [result["ModelPackage"]["ModelPackageArn"] for result in answer["Results"]]

    assert found() == arns
    assert found({"Name": "ModelApprovalStatus", "Operator": "Equals", "Value": "Approved"}) == [
        arns[0],
        arns[2],
    ]
    assert found({"Name": "ModelPackageVersion", "Operator": "GreaterThan", "Value": "1"}) == arns[1:]
    assert found({"Name": "ApprovalDescription", "Operator": "NotExists"}) == arns
    nested = {
        "NestedPropertyName": "InferenceSpecification.Containers",
        "Filters": [
            {"Name": "InferenceSpecification.Containers.Image", "Operator": "Contains", "Value": "serving"}
        ],
    }
    assert found(NestedFilters=[nested]) == arns
    pages = cloud.sagemaker.get_paginator("search").paginate(
        Resource="ModelPackage",
        SearchExpression={"Filters": [{"Name": "Tags.run", "Operator": "Equals", "Value": run}]},
        PaginationConfig={"PageSize": 2},
    )
    assert [len(page["Results"]) for page in pages] == [2, 1]


def test_state_changes_reach_a_queue_through_eventbridge(cloud: Cloud) -> None:
    sqs, events = cloud.client("sqs"), cloud.client("events")
    url = sqs.create_queue(QueueName=unique("queue"))["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    rule, group = unique("rule"), unique("group")
    # The group: events of other tests are delivered late, too.
    detail = {"ModelApprovalStatus": ["Approved"], "ModelPackageGroupName": [group]}
    pattern = json.dumps({"source": ["aws.sagemaker"], "detail": detail})
    events.put_rule(Name=rule, EventPattern=pattern, State="ENABLED")
    events.put_targets(Rule=rule, Targets=[{"Id": "queue", "Arn": arn}])
    cloud.sagemaker.create_model_package_group(ModelPackageGroupName=group)
    package_arn = package(cloud, group)
    cloud.sagemaker.update_model_package(ModelPackageArn=package_arn, ModelApprovalStatus="Approved")
    messages = eventually(lambda: sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1).get("Messages"))
    assert len(messages) == 1
    assert '"detail-type": "SageMaker Model Package State Change"' in messages[0]["Body"]
    assert package_arn in messages[0]["Body"]


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("list_domains", {}),
        ("describe_pipeline", {"PipelineName": "p"}),
        ("create_experiment", {"ExperimentName": "e"}),
        ("list_auto_ml_jobs", {}),
    ],
)
def test_what_is_not_supported_says_so(cloud: Cloud, name: str, params: dict[str, str]) -> None:
    code, message = error(getattr(cloud.sagemaker, name), **params)
    assert code == "UnsupportedOperation"
    assert message.startswith("sagemaker:")
    assert message.endswith(" is not supported by local_aws.")
