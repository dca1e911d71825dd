"""Model packages, against the service model of botocore."""

from __future__ import annotations

from ml_pipeline.aws import images
from ml_pipeline.registry import packages as registry
from tests.ml_pipeline.requests.examples import SETTINGS
from tests.ml_pipeline.service_model import problems


def test_registry() -> None:
    package = registry.model_package(
        group="dogs",
        model_uri="s3://bucket/jobs/train/output/model.tar.gz",
        image=images.serving_image(SETTINGS, "ml.m5.large"),
        instance_type="ml.m5.large",
        evaluation_uri="s3://bucket/jobs/evaluate/evaluation/evaluation.json",
        metadata={"dataset_version": "abc", "accuracy": "0.9"},
        approved=True,
    )
    assert problems("sagemaker", "CreateModelPackage", package) == []
    group = registry.package_group("dogs", "Classifiers")
    assert problems("sagemaker", "CreateModelPackageGroup", group) == []
