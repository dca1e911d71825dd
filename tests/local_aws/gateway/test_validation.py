"""Requests checked as AWS checks them: against botocore's own validator, and AWS's recorded texts."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.local_aws.cloud import ROLE, Cloud

MODEL = botocore.session.get_session().get_service_model("sagemaker")
OPERATIONS = (
    "CreateTrainingJob", "CreateHyperParameterTuningJob", "CreateProcessingJob", "CreateTransformJob", "CreateModel",
    "CreateEndpointConfig", "CreateModelPackage", "CreateModelPackageGroup", "UpdateModelPackage", "ListTrainingJobs",
    "ListModelPackages", "DescribeTrainingJob", "Search", "AddTags",
)  # fmt: skip
CODES = (
    "ValidationException",
    "SerializationException",
    "ResourceNotFound",
    "ResourceInUse",
    "ConflictException",
)


def post(cloud: Cloud, operation: str, params: Any) -> tuple[int, dict[str, Any]]:
    """Send a request as it is, past boto3's own checks."""
    scope = "Credential=any/20261122/us-east-1/sagemaker/aws4_request, SignedHeaders=host, Signature=0"
    request = urllib.request.Request(
        cloud.url,
        data=json.dumps(params).encode(),
        headers={
            "Authorization": f"AWS4-HMAC-SHA256 {scope}",
            "X-Amz-Target": f"SageMaker.{operation}",
            "Content-Type": "application/x-amz-json-1.1",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def values(shape: Any, depth: int = 0) -> st.SearchStrategy[Any]:
    """Values for a shape: mostly of its type, at times of another."""
    # No null: to AWS a null member is one that was not given, to botocore it is an error.
    wrong = st.one_of(st.integers(-5, 5), st.text(max_size=4), st.just([]), st.just({}), st.booleans())
    return st.integers(0, 19).flatmap(lambda n: wrong if n == 0 else right(shape, depth))


def right(shape: Any, depth: int) -> st.SearchStrategy[Any]:
    kind = shape.type_name
    if kind == "structure":
        return structure(shape, depth)
    if kind == "list":
        return st.lists(values(shape.member, depth + 1), max_size=2 if depth < 4 else 0)
    if kind == "map":
        return st.dictionaries(
            st.text("abc-!", min_size=1, max_size=4), values(shape.value, depth + 1), max_size=2
        )
    if kind == "boolean":
        return st.booleans()
    if kind in ("integer", "long", "timestamp"):
        return st.integers(0, 2000)
    if kind in ("float", "double"):
        return st.floats(0, 10)
    enum = shape.metadata.get("enum")
    texts = st.sampled_from(["abc", "a" * 80, "bad_name!", "s3://bucket/key", ROLE, ""])
    return st.one_of(st.sampled_from(enum), texts) if enum else texts


@st.composite
def structure(draw: Any, shape: Any, depth: int) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    for name, member in shape.members.items():
        share = 15 if name in shape.required_members else (2 if depth < 3 else 0)
        if draw(st.integers(0, 15)) < share:
            chosen[name] = draw(values(member, depth + 1))
    if draw(st.integers(0, 30)) == 0:
        chosen["Nonsense"] = 1
    return chosen


@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_botocore_refuses_is_refused_and_nothing_breaks(cloud: Cloud, operation: str) -> None:
    shape = MODEL.operation_model(operation).input_shape

    @settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(structure(shape, 0))
    def check(params: dict[str, Any]) -> None:
        report = ParamValidator().validate(params, shape)
        status, answer = post(cloud, operation, params)
        if report.has_errors():
            assert status == 400, (params, answer)
            assert answer["__type"] in CODES[:2], answer
        else:
            assert status in (200, 400), (params, answer)
            assert status == 200 or (answer["__type"] in CODES and answer["message"]), answer

    check()


NAME = "[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"
RECORDED = [
    ("DescribeTrainingJob", {"TrainingJobName": "bad_name!"},
     "1 validation error detected: Value 'bad_name!' at 'trainingJobName' failed to satisfy constraint: "
     f"Member must satisfy regular expression pattern: {NAME}"),
    ("DescribeTrainingJob", {},
     "1 validation error detected: Value null at 'trainingJobName' failed to satisfy constraint: "
     "Member must not be null"),
    ("DescribeTrainingJob", {"TrainingJobName": "a" * 64},
     f"2 validation errors detected: Value '{'a' * 64}' at 'trainingJobName' failed to satisfy constraint: "
     f"Member must have length less than or equal to 63; Value '{'a' * 64}' at 'trainingJobName' failed to satisfy "
     f"constraint: Member must satisfy regular expression pattern: {NAME}"),
    ("ListTrainingJobs", {"MaxResults": 0},
     "1 validation error detected: Value '0' at 'maxResults' failed to satisfy constraint: "
     "Member must have value greater than or equal to 1"),
    ("ListTrainingJobs", {"MaxResults": 101},
     "1 validation error detected: Value '101' at 'maxResults' failed to satisfy constraint: "
     "Member must have value less than or equal to 100"),
    ("ListTrainingJobs", {"SortOrder": "Sideways"},
     "1 validation error detected: Value 'Sideways' at 'sortOrder' failed to satisfy constraint: "
     "Member must satisfy enum value set: [Ascending, Descending]"),
    ("CreateModel", {"ModelName": "m", "Containers": [{"Mode": "Both"}]},
     "1 validation error detected: Value 'Both' at 'containers.1.member.mode' failed to satisfy constraint: "
     "Member must satisfy enum value set: [SingleModel, MultiModel]"),
    ("AddTags", {"ResourceArn": "arn:aws:sagemaker:us-east-1:123456789012:model/m", "Tags": [{"Key": "k"}]},
     "1 validation error detected: Value null at 'tags.1.member.value' failed to satisfy constraint: "
     "Member must not be null"),
    ("DescribeTrainingJob", {"TrainingJobName": "absent"}, "Requested resource not found."),
    ("DescribeProcessingJob", {"ProcessingJobName": "absent"}, "Could not find requested job with name: absent"),
    ("DescribeTransformJob", {"TransformJobName": "absent"}, "Could not find requested job with name: absent"),
    ("DescribeModel", {"ModelName": "absent"},
     'Could not find model "arn:aws:sagemaker:us-east-1:123456789012:model/absent".'),
    ("DescribeEndpoint", {"EndpointName": "absent"},
     'Could not find endpoint "arn:aws:sagemaker:us-east-1:123456789012:endpoint/absent".'),
    ("DescribeEndpointConfig", {"EndpointConfigName": "absent"},
     'Could not find endpoint configuration "arn:aws:sagemaker:us-east-1:123456789012:endpoint-config/absent".'),
    ("DescribeHyperParameterTuningJob", {"HyperParameterTuningJobName": "absent"},
     "Amazon SageMaker can't find a tuning job called absent. Type another name."),
]  # fmt: skip


@pytest.mark.parametrize(("operation", "params", "message"), RECORDED)
def test_recorded_texts(cloud: Cloud, operation: str, params: dict[str, Any], message: str) -> None:
    status, answer = post(cloud, operation, params)
    assert (status, answer["message"]) == (400, message)


def test_values_of_the_wrong_type_and_requests_that_are_no_json(cloud: Cloud) -> None:
    status, answer = post(cloud, "DescribeTrainingJob", {"TrainingJobName": 5})
    assert (status, answer["__type"]) == (400, "SerializationException")
    assert answer["message"] == "NUMBER_VALUE cannot be converted to String at 'trainingJobName'"
    status, answer = post(cloud, "DescribeTrainingJob", ["no", "object"])
    assert (status, answer["__type"]) == (400, "SerializationException")
    status, answer = post(cloud, "NoSuchOperation", {})
    assert (status, answer["__type"]) == (400, "UnknownOperationException")
