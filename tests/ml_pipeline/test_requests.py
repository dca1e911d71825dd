"""Every request builder against botocore's service model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ml_pipeline.aws import images
from ml_pipeline.dataset.version import DatasetVersion, training_channels
from ml_pipeline.operators.embed import embed_request
from ml_pipeline.operators.evaluate import evaluate_request
from ml_pipeline.registry import packages as registry
from ml_pipeline.requests import endpoint, instance, names
from ml_pipeline.requests.endpoint import Serving
from ml_pipeline.requests.instance import Instance
from ml_pipeline.requests.job import Compute
from ml_pipeline.requests.network import Network
from ml_pipeline.requests.recipe import Recipe
from ml_pipeline.requests.training import Training, training_job
from ml_pipeline.requests.transform import transform_job
from ml_pipeline.requests.tuning import TuneStrategy, Tuning, WarmStart, tuning_job
from ml_pipeline.settings import Settings
from model_code import hyperparameters
from tests.ml_pipeline.manifests import manifest
from tests.ml_pipeline.service_model import problems

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


@pytest.mark.parametrize("strategy", list(TuneStrategy))
def test_tuning(strategy: TuneStrategy) -> None:
    grid = strategy is TuneStrategy.GRID
    changes = (
        {name: {"choices": [0.1, 0.2]} for name in hyperparameters.search_space("head")} if grid else None
    )
    ranges = hyperparameters.parameter_ranges("head", changes)
    search = Tuning(
        trial=training(
            hyperparameters=hyperparameters.static_hyperparameters({"strategy": "head"}, ranges),
            channels=training_channels(VERSION, "head", "s3://bucket/e/", None, final=False),
        ),
        ranges=ranges,
        objective=hyperparameters.OBJECTIVE,
        trials=None if grid else 12,
        parallel_trials=2,
        strategy=strategy,
        seed=0,
        early_stopping=strategy is TuneStrategy.BAYESIAN,
        target=0.9,
        patience_trials=5,
        stop_when_converged=True,
        max_runtime_seconds=3600,
        warm_start=WarmStart.IDENTICAL,
        warm_start_from=["tune-a-1"],
    )
    request = tuning_job("tune-0123456789ab-1", search, TAGS)
    assert problems("sagemaker", "CreateHyperParameterTuningJob", request) == []
    static = request["TrainingJobDefinition"]["StaticHyperParameters"]
    assert "learning_rate" not in static


@pytest.mark.parametrize("weights", ["s3://bucket/weights/1", None])
def test_embed(weights: str | None) -> None:
    request = embed_request(
        "embed-0123456789ab-1",
        TAGS,
        settings=SETTINGS,
        code_uri=CODE,
        embeddings_uri="s3://bucket/embeddings/1/",
        architecture="mobilenet_v2",
        weights_uri=weights,
        views=2,
        compute=Compute("ml.g4dn.xlarge", 2),
    )
    assert problems("sagemaker", "CreateProcessingJob", request) == []


@pytest.mark.parametrize("champion", ["s3://bucket/old/model.tar.gz", None])
def test_evaluate(champion: str | None) -> None:
    request = evaluate_request(
        "evaluate-0123456789ab-1",
        TAGS,
        settings=SETTINGS,
        code_uri=CODE,
        version=VERSION,
        model_uri="s3://bucket/new/model.tar.gz",
        champion_uri=champion,
        compute=Compute("ml.m5.xlarge"),
    )
    assert problems("sagemaker", "CreateProcessingJob", request) == []


def test_serving() -> None:
    serving = Serving(
        endpoint_name="photo-classifier",
        model_uri="s3://bucket/jobs/train/output/model.tar.gz",
        image=images.serving_image(SETTINGS, "ml.m5.large"),
        role_arn=SETTINGS.role_arn,
        instance_type="ml.m5.large",
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
        weights_uri=None, views=1, compute=Compute("ml.m5.xlarge"),
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


def test_the_code_comes_as_a_channel_because_an_isolated_container_reaches_nothing() -> None:
    request = training_job("train-1", training())
    assert "code" in {channel["ChannelName"] for channel in request["InputDataConfig"]}
    directory = request["HyperParameters"]["sagemaker_submit_directory"]
    assert directory == '"/opt/ml/input/data/code/abc.tar.gz"'


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


def test_instance_and_command() -> None:
    machine = Instance(
        name="ec2-0123456789ab-1",
        image_id="ami-12c6146b",
        instance_type="m5.xlarge",
        profile="ml-pipeline-instance",
        security_group_id="sg-1",
        subnet_id="subnet-1",
    )
    request = instance.run_instances(machine, TAGS)
    assert problems("ec2", "RunInstances", request) == []
    assert request["MetadataOptions"]["HttpTokens"] == "required"
    assert "KeyName" not in request
    assert "shutdown -h +240" in request["UserData"]
    assert problems("ec2", "CreateSecurityGroup", instance.security_group("none", "vpc-1")) == []
    command = instance.send_command(
        "ec2-train-1", "i-0123456789abcdef0", CODE, "s3://bucket/jobs/x/job.json", "bucket", 3600, "eu-west-1"
    )
    assert problems("ssm", "SendCommand", command) == []
    assert command["Parameters"]["executionTimeout"] == ["3600"]


def test_an_ml_instance_type_is_refused_for_ec2_and_the_reverse() -> None:
    with pytest.raises(ValueError, match=r"write m5\.xlarge"):
        Instance("n", "ami", "ml.m5.xlarge", "profile", "sg")
    with pytest.raises(ValueError, match=r"write ml\.m5\.xlarge"):
        Compute("m5.xlarge")
