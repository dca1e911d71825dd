"""Train the model that will be served, on SageMaker."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from ml_pipeline import code_archive, dataset, images
from ml_pipeline.jobs import JobKind
from ml_pipeline.operators.job import Request, SageMakerJobOperator
from ml_pipeline.recipe import Recipe
from ml_pipeline.requests.job import Compute
from ml_pipeline.requests.training import Training, training_job
from ml_pipeline.settings import Settings
from model_code import hyperparameters


class TrainingOperator(SageMakerJobOperator):
    """Refit the best trial's recipe and export `model.tar.gz`.

    Returns `{"training_job_name", "model_uri", "billable_seconds", "metrics": {name: value}}`.

    :param dataset: what the upload task returned.
    :param weights: what the weights task returned.
    :param embeddings: what the embed task returned.
    :param tuning: what the tune task returned; its best hyperparameters are used.
    :param recipe: the fields of a `Recipe`.
    :param instance_type, instance_count: machines; several train one model together.
    :param spot: managed spot with checkpoints.
    :param keep_alive: seconds the machines stay warm for the next job; billed.
    """

    kind = JobKind.TRAINING
    slug = "train"
    template_fields = (
        "dataset",
        "weights",
        "embeddings",
        "tuning",
        "recipe",
        "instance_type",
        "instance_count",
        "spot",
        "keep_alive",
    )

    def __init__(
        self,
        *,
        dataset: Any,
        weights: Any,
        embeddings: Any,
        tuning: Any,
        recipe: Mapping[str, Any],
        instance_type: Any = "ml.m5.xlarge",
        instance_count: Any = 1,
        spot: Any = False,
        keep_alive: Any = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dataset = dataset
        self.weights = weights
        self.embeddings = embeddings
        self.tuning = tuning
        self.recipe = recipe
        self.instance_type = instance_type
        self.instance_count = instance_count
        self.spot = spot
        self.keep_alive = keep_alive

    def request(self, settings: Settings) -> Request:
        """The training job; see `requests.training`."""
        s3 = self.client("s3")
        archive = code_archive.publish(s3, settings.bucket)
        version = dataset.load(s3, self.dataset["manifest_uri"])
        recipe = Recipe(**self.recipe)
        job = Training(
            image=images.training_image(settings, self.instance_type),
            role_arn=settings.role_arn,
            network=settings.network,
            script="train.py",
            code_uri=settings.s3(archive.key),
            hyperparameters=recipe.of_final(self.tuning["best_hyperparameters"]),
            channels=dataset.training_channels(
                version,
                recipe.strategy,
                self.embeddings["embeddings_uri"],
                self.weights["uri"],
                final=True,
            ),
            compute=Compute(
                self.instance_type,
                int(self.instance_count),
                spot=bool(self.spot),
                keep_alive_seconds=int(self.keep_alive),
            ),
            outputs_uri=settings.s3("jobs/"),
            metrics=hyperparameters.metric_definitions(),
            checkpoint_uri=settings.s3("jobs/") if self.spot else None,
        )
        return partial(_request, job=job)

    def result(self, settings: Settings, description: dict[str, Any]) -> dict[str, Any]:
        """The model's address and what it cost."""
        return {
            "training_job_name": description["TrainingJobName"],
            "model_uri": description["ModelArtifacts"]["S3ModelArtifacts"],
            "billable_seconds": description.get("BillableTimeInSeconds", 0),
            "metrics": {
                metric["MetricName"]: metric["Value"] for metric in description.get("FinalMetricDataList", [])
            },
        }


def _request(name: str, tags: Any, *, job: Training) -> dict[str, Any]:
    return training_job(name, job, tags)
