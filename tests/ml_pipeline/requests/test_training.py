"""CreateTrainingJob, against the service model of botocore."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

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
        training(
            channels=[
                replace(one, bytes=one.bytes << 40)
                for one in training_channels(VERSION, "finetune", None, None, final=True)
            ],
        ),
        training(network=PRIVATE),
        training(compute=Compute("ml.m5.xlarge, ml.m6i.xlarge", 2)),
    ],
    ids=["plain", "spot", "warm", "finetune", "fastfile", "private", "preferences"],
)
def test_training(job: Training) -> None:
    request = training_job("train-0123456789ab-1", job, TAGS)
    assert problems("sagemaker", "CreateTrainingJob", request) == []
    modes = {channel["ChannelName"]: channel["InputMode"] for channel in request["InputDataConfig"]}
    streamed = sum(channel.bytes for channel in job.channels) > 2**44
    assert (modes.pop("train", "File") == "FastFile") == streamed
    assert modes["code"] == "File"
    assert ("MaxWaitTimeInSeconds" in request["StoppingCondition"]) == job.compute.spot


TEACHER: Any = {"embeddings_uri": "s3://bucket/t/versions/v", "weights_uri": "s3://bucket/weights/2"}


@pytest.mark.parametrize(
    ("teacher", "names"),
    [
        (TEACHER, ["teacher_train", "teacher_valid", "teacher_weights"]),
        ({**TEACHER, "weights_uri": None}, ["teacher_train", "teacher_valid"]),
        ({"embeddings_uri": None, "weights_uri": None}, []),
        (None, []),
    ],
)
@pytest.mark.parametrize("strategy", ["head", "finetune"])
def test_a_teacher_comes_through_channels_of_its_own(teacher: Any, names: list[str], strategy: str) -> None:
    channels = training_channels(VERSION, strategy, "s3://bucket/e", None, final=False, teacher=teacher)
    assert [channel.name for channel in channels if channel.name.startswith("teacher_")] == names
    request = training_job("train-1", training(channels=channels), TAGS)
    assert problems("sagemaker", "CreateTrainingJob", request) == []


def test_several_instance_types_are_preferences_with_one_count() -> None:
    resources = training_job("train-1", training(compute=Compute("ml.m5.xlarge, ml.m6i.xlarge", 2)))[
        "ResourceConfig"
    ]
    assert resources["InstancePreferences"] == [
        {"InstanceType": "ml.m5.xlarge"},
        {"InstanceType": "ml.m6i.xlarge"},
    ]
    assert resources["InstanceCount"] == 2
    assert "InstanceType" not in resources


@pytest.mark.parametrize("options", [{"spot": True}, {"keep_alive_seconds": 60}])
def test_several_instance_types_need_instances_on_demand(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="only without"):
        Compute("ml.m5.xlarge, ml.m6i.xlarge", **options)


def test_a_volume_key_suits_all_instance_types_or_none() -> None:
    assert PRIVATE.volume("ml.g4dn.xlarge, ml.g5.xlarge") == {}
    assert PRIVATE.volume("ml.m5.xlarge, ml.m6i.xlarge") == {"VolumeKmsKeyId": "alias/ml-pipeline"}
    with pytest.raises(ValueError, match="volume key"):
        PRIVATE.volume("ml.m5.xlarge, ml.m5d.xlarge")


def test_the_code_comes_as_a_channel_because_an_isolated_container_reaches_nothing() -> None:
    request = training_job("train-1", training())
    assert "code" in {channel["ChannelName"] for channel in request["InputDataConfig"]}
    directory = request["HyperParameters"]["sagemaker_submit_directory"]
    assert directory == '"/opt/ml/input/data/code/abc.tar.gz"'
