"""Models, endpoints, alarms and scaling, against the service model of botocore."""

from __future__ import annotations

import pytest

from ml_pipeline.aws import images
from ml_pipeline.requests import endpoint, preferences
from ml_pipeline.requests.endpoint import Serving
from tests.ml_pipeline.requests.examples import SETTINGS, TAGS
from tests.ml_pipeline.service_model import problems


@pytest.mark.parametrize("instance_type", ["ml.m5.large", "ml.m5.large, ml.m6i.large"])
def test_serving(instance_type: str) -> None:
    serving = Serving(
        endpoint_name="photo-classifier",
        model_uri="s3://bucket/jobs/train/output/model.tar.gz",
        image=images.serving_image(SETTINGS, instance_type),
        role_arn=SETTINGS.role_arn,
        instance_type=instance_type,
        instance_count=2,
    )
    assert problems("sagemaker", "CreateModel", endpoint.model(serving, TAGS)) == []
    assert problems("sagemaker", "CreateEndpointConfig", endpoint.endpoint_config(serving, TAGS)) == []
    assert problems("sagemaker", "CreateEndpoint", endpoint.create_endpoint(serving, TAGS)) == []
    for instances in (1, 4):
        update = endpoint.update_endpoint(serving, instances)
        assert problems("sagemaker", "UpdateEndpoint", update) == []
    for alarm in endpoint.alarms(serving):
        assert problems("cloudwatch", "PutMetricAlarm", alarm) == []


@pytest.mark.parametrize("instance_type", ["ml.m5.large", "ml.m5.large, ml.m6i.large"])
def test_the_instance_types_of_a_variant_are_read_as_they_were_written(instance_type: str) -> None:
    variant = preferences.of_variant(instance_type)
    assert preferences.in_variant(variant) == instance_type
