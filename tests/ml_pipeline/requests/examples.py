"""Examples that the tests of requests share."""

from __future__ import annotations

from ml_pipeline.aws import images
from ml_pipeline.dataset.version import DatasetVersion, training_channels
from ml_pipeline.requests import names
from ml_pipeline.requests.job import Compute
from ml_pipeline.requests.network import Network
from ml_pipeline.requests.recipe import Recipe
from ml_pipeline.requests.training import Training
from ml_pipeline.settings import Settings
from model_code import hyperparameters
from tests.ml_pipeline.manifests import manifest

SETTINGS = Settings(
    bucket="bucket", role_arn="arn:aws:iam::123456789012:role/jobs", region="eu-west-1", local_aws_url=None
)
ORIGIN = names.Origin("train_and_deploy", "manual__2026-11-22T21:00:00+00:00", "train")
TAGS = names.tags(ORIGIN)
MANIFEST = manifest("dogs", [("1" * 64, "train", 8), ("2" * 64, "valid", 2), ("3" * 64, "test", 2)])
VERSION = DatasetVersion(MANIFEST, "s3://bucket/datasets/dogs/versions/abc/manifest.json")
CODE = "s3://bucket/code/abc.tar.gz"


PRIVATE = Network(
    ("subnet-a", "subnet-b"), ("sg-1",), "alias/ml-pipeline", isolated=True, encrypt_traffic=True
)


def training(**changes: object) -> Training:
    compute = changes.pop("compute", Compute("ml.m5.xlarge"))
    assert isinstance(compute, Compute)
    values: dict[str, object] = {
        "image": images.training_image(SETTINGS, compute.instance_type),
        "role_arn": SETTINGS.role_arn,
        "script": "train.py",
        "code_uri": CODE,
        "hyperparameters": Recipe("head", "resnet18", 1).of_final({"learning_rate": "0.01"}),
        "channels": training_channels(VERSION, "head", "s3://bucket/e/", "s3://bucket/weights/1", final=True),
        "compute": compute,
        "outputs_uri": SETTINGS.s3("jobs/"),
        "metrics": hyperparameters.metric_definitions(),
        **changes,
    }
    return Training(**values)  # type: ignore[arg-type]
