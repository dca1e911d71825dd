"""CreateTrainingJob, and the script-mode hyperparameters it shares with a tuning job."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ml_pipeline.requests.job import Channel, Compute, in_place
from ml_pipeline.requests.network import OPEN, Network
from ml_pipeline.requests.types import Document, Tags

# CreateTrainingJob refuses more hyperparameters.
MAX_HYPERPARAMETERS = 100
_CODE = "code"


@dataclass(frozen=True)
class Training:
    """A training job without its name.

    Attributes:
        script: "train.py" or "tune.py", at the root of the code archive.
        code_uri: s3:// URI of the code archive.
        hyperparameters: Values as strings, without those of the toolkit.
        outputs_uri: Folder under which `<job name>/output/model.tar.gz` is written.
        metrics: MetricDefinitions.
        checkpoint_uri: Prefix that mirrors /opt/ml/checkpoints; required with spot.
        network: See `Network`.
        mlflow: MlflowConfig, by which the container finds a SageMaker MLflow app.
    """

    image: str
    role_arn: str
    script: str
    code_uri: str
    hyperparameters: Mapping[str, str]
    channels: Sequence[Channel]
    compute: Compute
    outputs_uri: str
    metrics: Sequence[Mapping[str, object]] = ()
    checkpoint_uri: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    network: Network = OPEN
    mlflow: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.compute.spot and not self.checkpoint_uri:
            raise ValueError("a spot job needs checkpoint_uri: an interruption would lose everything")
        if len(self.hyperparameters) + 4 > MAX_HYPERPARAMETERS:
            raise ValueError(
                f"{len(self.hyperparameters)} hyperparameters; SageMaker takes {MAX_HYPERPARAMETERS}"
            )


def training_job(name: str, job: Training, tags: Tags = ()) -> Document:
    """Build the request of CreateTrainingJob for `job` under `name`."""
    request: Document = {
        "TrainingJobName": name,
        "HyperParameters": {**job.hyperparameters, **script_mode(job)},
        "Tags": list(tags),
        **definition(job),
    }
    if job.mlflow:
        request["MlflowConfig"] = dict(job.mlflow)
    if job.checkpoint_uri:
        request["CheckpointConfig"] = {"S3Uri": f"{job.checkpoint_uri.rstrip('/')}/{name}/checkpoints"}
    return request


def definition(job: Training) -> Document:
    """Return what CreateTrainingJob and the TrainingJobDefinition of a tuning job share."""
    # The code is a channel: an isolated container cannot fetch it.
    channels = in_place(job.compute, [*job.channels, Channel(_CODE, job.code_uri)])
    return {
        "AlgorithmSpecification": {
            "TrainingImage": job.image,
            "TrainingInputMode": "File",
            "MetricDefinitions": [dict(metric) for metric in job.metrics],
        },
        "RoleArn": job.role_arn,
        "InputDataConfig": [channel.training_input() for channel in channels],
        "OutputDataConfig": {"S3OutputPath": job.outputs_uri},
        "ResourceConfig": {
            **job.compute.resource_config(channels),
            **job.network.volume(job.compute.instance_type),
        },
        "StoppingCondition": job.compute.stopping_condition(),
        "EnableManagedSpotTraining": job.compute.spot,
        "RetryStrategy": {"MaximumRetryAttempts": 2},
        **job.network.training(),
        **({"Environment": dict(job.environment)} if job.environment else {}),
    }


def script_mode(job: Training) -> dict[str, str]:
    """Return the hyperparameters by which the training toolkit finds the script; each value is JSON."""
    values = {
        "sagemaker_program": job.script,
        "sagemaker_submit_directory": f"/opt/ml/input/data/{_CODE}/{job.code_uri.rpartition('/')[2]}",
        "sagemaker_container_log_level": 20,
    }
    if job.compute.instance_count > 1:
        # One torchrun per instance; the toolkit picks that runner only for the groups listed here.
        values["sagemaker_torch_distributed_enabled"] = True
        values["sagemaker_distribution_instance_groups"] = ["homogeneousCluster"]
    return {name: json.dumps(value) for name, value in values.items()}
