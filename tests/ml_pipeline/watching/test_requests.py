"""Requests of the watch to SageMaker and CloudWatch, against botocore's model."""

from __future__ import annotations

import pytest

from ml_pipeline.operators.watch import watch_request
from ml_pipeline.requests import endpoint
from ml_pipeline.requests.endpoint import Serving, capture_of
from ml_pipeline.requests.job import Compute
from ml_pipeline.watching import looks
from ml_pipeline.watching.looks import Begun
from tests.ml_pipeline.requests.examples import CODE, SETTINGS, VERSION
from tests.ml_pipeline.service_model import problems

BEGUN: Begun = {
    "endpoint_name": "dogs", "dataset_name": "dogs", "dataset_version": "v1", "model_uri": "s3://b/m.tar.gz",
    "number": 3, "level": 0.0027, "captures_uri": "s3://b/captures/7d/dogs/main/", "files": 2, "accepted": 0,
}  # fmt: skip


@pytest.mark.parametrize("known", ["s3://b/jobs/references/x/", None])
def test_a_look_asks_for_test_photos_only_where_there_is_no_reference(known: str | None) -> None:
    request = watch_request(
        "watch-1", [], settings=SETTINGS, code_uri=CODE, version=VERSION, begun=BEGUN, known_reference=known,
        truth_uri=None, reviewed_uri=None, compute=Compute("ml.m5.large"), arguments=[],
    )  # fmt: skip
    assert problems("sagemaker", "CreateProcessingJob", request) == []
    inputs = {entry["InputName"] for entry in request["ProcessingInputs"]}
    assert ("reference" in inputs, "test" in inputs) == (known is not None, known is None)
    outputs = {entry["OutputName"] for entry in request["ProcessingOutputConfig"]["Outputs"]}
    assert outputs == ({"look"} if known else {"look", "reference"})


def test_the_first_look_at_a_retrained_model_gets_the_photos_that_led_to_it() -> None:
    request = watch_request(
        "watch-1", [], settings=SETTINGS, code_uri=CODE, version=VERSION, begun={**BEGUN, "accepted": 5},
        known_reference=None, truth_uri=None, reviewed_uri="s3://b/datasets/dogs/reviews/answers/",
        compute=Compute("ml.m5.large"), arguments=[],
    )  # fmt: skip
    assert problems("sagemaker", "CreateProcessingJob", request) == []
    inputs = {entry["InputName"]: entry["S3Input"]["S3Uri"] for entry in request["ProcessingInputs"]}
    assert inputs["accepted"].endswith("looks/000003/accepted.manifest")
    assert inputs["reviewed"] == "s3://b/datasets/dogs/reviews/answers/"


def test_capture_is_on_only_with_a_retention() -> None:
    assert capture_of("b", 100, None) is None
    serving = Serving("dogs", "s3://b/m.tar.gz", "image", SETTINGS.role_arn, "ml.m5.large")
    assert "DataCaptureConfig" not in endpoint.endpoint_config(serving)
    kept = Serving(
        "dogs", "s3://b/m.tar.gz", "image", SETTINGS.role_arn, "ml.m5.large", capture=capture_of("b", 50, 30)
    )
    request = endpoint.endpoint_config(kept)
    assert problems("sagemaker", "CreateEndpointConfig", request) == []
    assert request["DataCaptureConfig"]["DestinationS3Uri"] == "s3://b/captures/30d"
    assert kept.config_name != serving.config_name
    with pytest.raises(ValueError, match="7, 30, 90"):
        capture_of("b", 100, 8)


def test_the_alarm_and_the_metrics_are_what_cloudwatch_takes() -> None:
    assert problems("cloudwatch", "PutMetricAlarm", looks.alarm("dogs")) == []
