"""The requests that the tuning and training operators make of a run's params."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from ml_pipeline.aws import jobs
from ml_pipeline.errors import JobFailed
from ml_pipeline.operators.evaluate import EvaluateOperator
from ml_pipeline.operators.training import FittingOperator, TrainingOperator
from ml_pipeline.operators.tuning import HyperparameterTuningOperator
from ml_pipeline.settings import Settings
from model_code import hyperparameters
from tests.ml_pipeline.manifests import manifest
from tests.ml_pipeline.service_model import problems

SETTINGS = Settings("bucket", "arn:aws:iam::123456789012:role/jobs", "us-east-1")
MANIFEST = manifest("dogs", [("1" * 64, "train", 4), ("2" * 64, "valid", 4), ("3" * 64, "test", 4)])
MANIFEST_KEY = "datasets/dogs/versions/abc/manifest.json"
MATERIAL: dict[str, Any] = {
    "dataset": {"name": "dogs", "manifest_uri": f"s3://bucket/{MANIFEST_KEY}"},
    "weights": {"uri": "s3://bucket/weights/1", "sha256": "1"},
    "embeddings": {"embeddings_uri": "s3://bucket/embeddings/1/versions/abc"},
    "recipe": {
        "strategy": "head",
        "architecture": "resnet18",
        "seed": 3,
        "hyperparameters": {"epochs": 7, "dropout": 0.25},
        "ranges": None,
    },
}


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with mock_aws():
        session = boto3.Session(aws_access_key_id="x", aws_secret_access_key="x", region_name="us-east-1")
        client = session.client("s3")
        client.create_bucket(Bucket="bucket")
        client.put_object(Bucket="bucket", Key=MANIFEST_KEY, Body=MANIFEST.to_json().encode())
        monkeypatch.setattr(FittingOperator, "client", lambda self, service: client)
        yield client


def test_a_spot_training_on_two_machines(s3: Any) -> None:
    operator = TrainingOperator(
        task_id="train",
        **MATERIAL,
        tuning={"best_hyperparameters": {"learning_rate": "0.01"}},
        instance_count=2,
        spot=True,
    )
    request = operator.request(SETTINGS)("train-0123456789ab-1", [])
    assert problems("sagemaker", "CreateTrainingJob", request) == []
    values = request["HyperParameters"]
    assert (values["epochs"], values["dropout"], values["learning_rate"]) == ("7", "0.25", "0.01")
    assert (values["mode"], values["seed"]) == ("final", "3")
    assert values["sagemaker_torch_distributed_enabled"] == "true"
    assert request["CheckpointConfig"]["S3Uri"] == "s3://bucket/jobs/train-0123456789ab-1/checkpoints"
    assert {channel["ChannelName"] for channel in request["InputDataConfig"]} >= {"train", "valid", "code"}


@pytest.mark.parametrize("tune_mode", ["job", "packed"])
def test_what_is_fixed_reaches_every_way_of_searching(s3: Any, tune_mode: str) -> None:
    operator = HyperparameterTuningOperator(
        task_id="tune", **MATERIAL, trials=4, tune_mode=tune_mode, keep_alive=60
    )
    request = operator.request(SETTINGS)("tune-0123456789ab-1", [])
    if tune_mode == "packed":
        assert problems("sagemaker", "CreateTrainingJob", request) == []
        values = request["HyperParameters"]
        assert values["trials"] == "4"
    else:
        assert problems("sagemaker", "CreateHyperParameterTuningJob", request) == []
        values = request["TrainingJobDefinition"]["StaticHyperParameters"]
        ranges = request["HyperParameterTuningJobConfig"]["ParameterRanges"]
        tuned = {entry["Name"] for entries in ranges.values() for entry in entries}
        assert "dropout" not in tuned
        assert "learning_rate" in tuned
    assert (values["epochs"], values["dropout"]) == ("7", "0.25")


@pytest.mark.parametrize(("hours", "seconds"), [(0.5, 1800), (28 * 24, 2419200)])
def test_a_job_may_run_as_long_as_was_asked_for(s3: Any, hours: float, seconds: int) -> None:
    best: dict[str, Any] = {"best_hyperparameters": {}}
    train = TrainingOperator(task_id="train", **MATERIAL, tuning=best, max_job_hours=hours)
    stopping = train.request(SETTINGS)("train-0123456789ab-1", [])["StoppingCondition"]
    assert stopping == {"MaxRuntimeInSeconds": seconds}
    searches = {
        mode: HyperparameterTuningOperator(
            task_id="tune", **MATERIAL, trials=5, parallel_trials=2, tune_mode=mode, max_job_hours=hours
        )
        for mode in ("job", "packed")
    }
    trials = searches["job"].request(SETTINGS)("tune-0123456789ab-1", [])["TrainingJobDefinition"]
    assert trials["StoppingCondition"] == {"MaxRuntimeInSeconds": seconds}
    packed = searches["packed"].request(SETTINGS)("tune-0123456789ab-1", [])
    assert packed["StoppingCondition"] == {"MaxRuntimeInSeconds": seconds}
    evaluate = EvaluateOperator(task_id="evaluate", dataset={}, training=[], group="g", max_job_hours=hours)
    # SageMaker ends a processing job after 9 days.
    assert evaluate.compute.max_runtime_seconds == min(seconds, 777600)
    # A job that may still run is not given up.
    waits = [job.longest_run().total_seconds() for job in (train, searches["packed"], searches["job"])]
    assert waits == [seconds, seconds, 3 * seconds]


def test_a_grid_leaves_the_number_of_trials_to_sagemaker(s3: Any) -> None:
    recipe = {
        **MATERIAL["recipe"],
        "hyperparameters": {},
        "ranges": {name: {"choices": [0.1, 0.2]} for name in hyperparameters.search_space("head")},
    }
    operator = HyperparameterTuningOperator(
        task_id="tune", **{**MATERIAL, "recipe": recipe}, trials=4, tune_strategy="Grid"
    )
    request = operator.request(SETTINGS)("tune-0123456789ab-1", [])
    assert problems("sagemaker", "CreateHyperParameterTuningJob", request) == []
    assert request["HyperParameterTuningJobConfig"]["ResourceLimits"] == {"MaxParallelTrainingJobs": 2}


def test_a_search_whose_trials_were_all_stopped_says_what_stopped_them(
    s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = HyperparameterTuningOperator(task_id="tune", **MATERIAL, trials=1)
    trial = {"TrainingJobName": "tune-1-001", "TrainingJobStatus": "Stopped"}
    stopped = {**trial, "SecondaryStatus": "MaxRuntimeExceeded"}
    monkeypatch.setattr(operator, "_trials", lambda name: [trial])
    monkeypatch.setattr(jobs, "describe", lambda client, kind, name: stopped)
    with pytest.raises(JobFailed, match=r"MaxRuntimeExceeded.*max_job_hours"):
        operator.result(SETTINGS, {"HyperParameterTuningJobName": "tune-1"})


def test_a_retry_makes_the_same_request(s3: Any) -> None:
    def request() -> dict[str, Any]:
        operator = HyperparameterTuningOperator(task_id="tune", **MATERIAL, trials=4)
        return operator.identity(operator.request(SETTINGS))

    assert request() == request()
