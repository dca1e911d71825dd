"""Networks and disk keys in every request, against the service model of botocore."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ml_pipeline.operators.embed import embed_request
from ml_pipeline.operators.evaluate import evaluate_request
from ml_pipeline.requests import endpoint
from ml_pipeline.requests.endpoint import Serving
from ml_pipeline.requests.job import Compute
from ml_pipeline.requests.network import Network
from ml_pipeline.requests.training import training_job
from ml_pipeline.requests.transform import transform_job
from ml_pipeline.requests.tuning import Tuning, tuning_job
from model_code import hyperparameters
from tests.ml_pipeline.requests.examples import CODE, PRIVATE, SETTINGS, VERSION, training
from tests.ml_pipeline.service_model import problems

VPC = {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-a", "subnet-b"]}

SWITCHES = {"EnableNetworkIsolation": True, "EnableInterContainerTrafficEncryption": True}


def test_a_private_network_is_asked_for_everywhere() -> None:
    settings = replace(SETTINGS, network=PRIVATE)
    ranges = hyperparameters.parameter_ranges("head")
    search = Tuning(training(network=PRIVATE), ranges, hyperparameters.OBJECTIVE, trials=1, parallel_trials=1)
    tuning = tuning_job("tune-0123456789ab-1", search)
    assert problems("sagemaker", "CreateHyperParameterTuningJob", tuning) == []
    for job in (training_job("train-1", training(network=PRIVATE)), tuning["TrainingJobDefinition"]):
        assert {name: job.get(name) for name in ("VpcConfig", *SWITCHES)} == {"VpcConfig": VPC, **SWITCHES}
        assert job["ResourceConfig"]["VolumeKmsKeyId"] == "alias/ml-pipeline"
    embed = embed_request(
        "embed-1", [], settings=settings, code_uri=CODE, embeddings_uri="s3://b/e/", architecture="resnet18",
        weights_uri=None, views=1, version=VERSION, compute=Compute("ml.m5.xlarge"),
    )  # fmt: skip
    evaluate = evaluate_request(
        "evaluate-1", [], settings=settings, code_uri=CODE, version=VERSION, model_uri="s3://b/m.tar.gz",
        champion_uri=None, compute=Compute("ml.m5.xlarge"),
    )  # fmt: skip
    for job in (embed, evaluate):
        assert problems("sagemaker", "CreateProcessingJob", job) == []
        assert job["NetworkConfig"] == {"VpcConfig": VPC, **SWITCHES}
        assert job["ProcessingResources"]["ClusterConfig"]["VolumeKmsKeyId"] == "alias/ml-pipeline"
    transform = transform_job(
        "predict-1", "model", "s3://b/p/", "s3://b/a/", Compute("ml.m5.large"), network=PRIVATE
    )
    assert problems("sagemaker", "CreateTransformJob", transform) == []
    assert transform["TransformResources"]["VolumeKmsKeyId"] == "alias/ml-pipeline"
    serving = Serving("dogs", "s3://b/m.tar.gz", "image", SETTINGS.role_arn, "ml.m5.large", network=PRIVATE)
    assert problems("sagemaker", "CreateModel", endpoint.model(serving)) == []
    assert endpoint.model(serving)["VpcConfig"] == VPC
    assert problems("sagemaker", "CreateEndpointConfig", endpoint.endpoint_config(serving)) == []
    assert endpoint.endpoint_config(serving)["KmsKeyId"] == "alias/ml-pipeline"


@pytest.mark.parametrize(
    ("instance_type", "has_key"),
    [("ml.m5.xlarge", True), ("ml.c6i.large", True), ("ml.p3.2xlarge", True), ("ml.m5d.large", False),
     ("ml.g4dn.xlarge", False), ("ml.g5.xlarge", False), ("ml.p4de.24xlarge", False)],
)  # fmt: skip
def test_disks_that_encrypt_themselves_take_no_key(instance_type: str, has_key: bool) -> None:
    assert bool(PRIVATE.volume(instance_type)) is has_key


def test_half_a_network_is_refused() -> None:
    with pytest.raises(ValueError, match="go together"):
        Network(subnet_ids=("subnet-a",))
