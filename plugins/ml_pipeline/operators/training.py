"""Fit models on SageMaker: what tuning and training share, and the training of the final model."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Required, Unpack

from ml_pipeline.aws import code_archive, images
from ml_pipeline.aws.jobs import JobKind
from ml_pipeline.dataset import version as dataset
from ml_pipeline.operators.job import JobOptions, Request, Result, SageMakerJobOperator
from ml_pipeline.requests.job import DEFAULT_HOURS, Compute
from ml_pipeline.requests.recipe import Recipe
from ml_pipeline.requests.training import Training, training_job
from ml_pipeline.requests.types import Document, Tags, Templated, Trained
from ml_pipeline.settings import Settings
from model_code import hyperparameters


class FittingOptions(JobOptions, total=False):
    """The arguments of `FittingOperator`, for its subclasses."""

    dataset: Required[Templated]
    weights: Required[Templated]
    embeddings: Required[Templated]
    recipe: Required[Templated]
    teacher: Templated
    instance_type: Templated
    instance_count: Templated
    spot: Templated
    keep_alive: Templated
    max_job_hours: Templated


class FittingOperator(SageMakerJobOperator[Result], ABC):
    """Run a job that fits models.

    Args:
        dataset: Result of upload.
        weights: Result of weights.
        embeddings: Result of embed.
        recipe: Fields of a `Recipe`.
        teacher: Result of embed_teacher; None: there is no teacher.
        instance_type, instance_count: Instances; several fit one model together.
        spot: Managed spot with checkpoints.
        keep_alive: Seconds that the instances stay warm for the next job; billed.
        max_job_hours: SageMaker stops a job that runs longer.
    """

    template_fields: tuple[str, ...] = (
        "dataset",
        "weights",
        "embeddings",
        "recipe",
        "teacher",
        "instance_type",
        "instance_count",
        "spot",
        "keep_alive",
        "max_job_hours",
    )

    def __init__(
        self,
        *,
        dataset: Templated,
        weights: Templated,
        embeddings: Templated,
        recipe: Templated,
        teacher: Templated = None,
        instance_type: Templated = "ml.m5.xlarge",
        instance_count: Templated = 1,
        spot: Templated = False,
        keep_alive: Templated = 0,
        max_job_hours: Templated = DEFAULT_HOURS,
        **kwargs: Unpack[JobOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.dataset = dataset
        self.weights = weights
        self.embeddings = embeddings
        self.recipe = recipe
        self.teacher = teacher
        self.instance_type = instance_type
        self.instance_count = instance_count
        self.spot = spot
        self.keep_alive = keep_alive
        self.max_job_hours = max_job_hours

    @property
    def compute(self) -> Compute:
        """The instances of a job."""
        return Compute.of_params(
            self.instance_type, self.instance_count, self.max_job_hours, self.spot, self.keep_alive
        )

    def longest_run(self) -> timedelta:
        """Return the limit of one job; with spot, waiting for instances is included."""
        compute = self.compute
        return timedelta(seconds=compute.wait_seconds if compute.spot else compute.max_runtime_seconds)

    def job(
        self, settings: Settings, script: str, values: Mapping[str, str], checkpoints: str, *, final: bool
    ) -> Training:
        """Build the training job that runs `script`.

        Args:
            settings: Settings of the pipeline.
            script: Entry point in the code archive, which SageMaker runs in the container.
            values: The hyperparameters.
            checkpoints: Prefix of the checkpoints, which only spot jobs write.
            final: See `dataset.training_channels`.
        """
        s3 = self.client("s3")
        archive = code_archive.publish(s3, settings.bucket)
        version = dataset.load(s3, self.dataset["manifest_uri"])
        strategy = Recipe(**self.recipe).strategy
        embeddings, weights = self.embeddings["embeddings_uri"], self.weights["uri"]
        return Training(
            image=images.training_image(settings, self.instance_type),
            role_arn=settings.role_arn,
            network=settings.network,
            script=script,
            code_uri=settings.s3(archive.key),
            hyperparameters=values,
            channels=dataset.training_channels(version, strategy, embeddings, weights, final, self.teacher),
            compute=self.compute,
            outputs_uri=settings.s3("jobs/"),
            metrics=hyperparameters.metric_definitions(),
            checkpoint_uri=settings.s3(checkpoints) if self.spot else None,
            mlflow=self._mlflow(settings),
        )

    def _mlflow(self, settings: Settings) -> dict[str, str]:
        """Return the job's MlflowConfig, for a SageMaker MLflow app and a botocore that knows the field."""
        if not (settings.mlflow or "").startswith("arn:"):
            return {}
        operation = self.client("sagemaker").meta.service_model.operation_model("CreateTrainingJob")
        if "MlflowConfig" not in operation.input_shape.members:
            return {}
        return {"MlflowResourceArn": str(settings.mlflow), "MlflowExperimentName": self.dataset["name"]}


class TrainingOperator(FittingOperator[Trained]):
    """Refit the best trial's recipe and export `model.tar.gz`.

    The others: see `FittingOperator`.

    Args:
        tuning: Result of tune; its best hyperparameters are used.
    """

    kind = JobKind.TRAINING
    slug = "train"
    template_fields = (*FittingOperator.template_fields, "tuning")

    def __init__(self, *, tuning: Templated, **kwargs: Unpack[FittingOptions]) -> None:
        super().__init__(**kwargs)
        self.tuning = tuning

    def request(self, settings: Settings) -> Request:
        """Return the training job; see `requests.training`."""
        values = Recipe(**self.recipe).of_final(self.tuning["best_hyperparameters"])
        return partial(_request, job=self.job(settings, "train.py", values, "jobs/", final=True))

    def result(self, settings: Settings, description: Document) -> Trained:
        """Return the model's address, billable seconds and metrics."""
        return {
            "training_job_name": description["TrainingJobName"],
            "model_uri": description["ModelArtifacts"]["S3ModelArtifacts"],
            "billable_seconds": description.get("BillableTimeInSeconds", 0),
            "metrics": {
                metric["MetricName"]: metric["Value"] for metric in description.get("FinalMetricDataList", [])
            },
        }


def _request(name: str, tags: Tags, *, job: Training) -> Document:
    return training_job(name, job, tags)
