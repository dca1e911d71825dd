"""CreateTrainingJob, against the service model of botocore."""

from __future__ import annotations

import pytest

from ml_pipeline.dataset.version import training_channels
from ml_pipeline.requests.job import Compute
from ml_pipeline.requests.training import Training, training_job
from tests.ml_pipeline.requests.examples import PRIVATE, TAGS, VERSION, training
from tests.ml_pipeline.service_model import problems


@pytest.mark.parametrize(
    "job",
    [
        training(),
        training(
            compute=Compute("ml.g4dn.xlarge", 2, spot=True, max_runtime_seconds=60),
            checkpoint_uri="s3://bucket/jobs/",
        ),
        training(compute=Compute("ml.m5.xlarge", keep_alive_seconds=600)),
        training(
            channels=training_channels(VERSION, "finetune", None, "s3://bucket/weights/1", final=False),
            environment={"A": "b"},
        ),
        training(network=PRIVATE),
    ],
    ids=["plain", "spot", "warm", "finetune", "private"],
)
def test_training(job: Training) -> None:
    request = training_job("train-0123456789ab-1", job, TAGS)
    assert problems("sagemaker", "CreateTrainingJob", request) == []
    assert ("MaxWaitTimeInSeconds" in request["StoppingCondition"]) == job.compute.spot


def test_the_code_comes_as_a_channel_because_an_isolated_container_reaches_nothing() -> None:
    request = training_job("train-1", training())
    assert "code" in {channel["ChannelName"] for channel in request["InputDataConfig"]}
    directory = request["HyperParameters"]["sagemaker_submit_directory"]
    assert directory == '"/opt/ml/input/data/code/abc.tar.gz"'
