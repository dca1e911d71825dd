"""What tuning and training share: the material, the recipe, the machines, and the training job made of them."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from ml_pipeline.aws import code_archive, images
from ml_pipeline.dataset import version as dataset
from ml_pipeline.operators.job import SageMakerJobOperator
from ml_pipeline.requests.job import DEFAULT_HOURS, Compute
from ml_pipeline.requests.recipe import Recipe
from ml_pipeline.requests.training import Training
from ml_pipeline.settings import Settings
from model_code import hyperparameters


class FittingOperator(SageMakerJobOperator, ABC):
    """A job that fits models.

    :param dataset: what the upload task returned.
    :param weights: what the weights task returned.
    :param embeddings: what the embed task returned.
    :param recipe: the fields of a `Recipe`.
    :param instance_type, instance_count: machines; several fit one model together.
    :param spot: managed spot with checkpoints.
    :param keep_alive: seconds the machines stay warm for the next job; billed.
    :param max_job_hours: SageMaker stops a job that runs longer.
    """

    template_fields: tuple[str, ...] = (
        "dataset",
        "weights",
        "embeddings",
        "recipe",
        "instance_type",
        "instance_count",
        "spot",
        "keep_alive",
        "max_job_hours",
    )

    def __init__(
        self,
        *,
        dataset: Any,
        weights: Any,
        embeddings: Any,
        recipe: Mapping[str, Any],
        instance_type: Any = "ml.m5.xlarge",
        instance_count: Any = 1,
        spot: Any = False,
        keep_alive: Any = 0,
        max_job_hours: Any = DEFAULT_HOURS,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dataset = dataset
        self.weights = weights
        self.embeddings = embeddings
        self.recipe = recipe
        self.instance_type = instance_type
        self.instance_count = instance_count
        self.spot = spot
        self.keep_alive = keep_alive
        self.max_job_hours = max_job_hours

    @property
    def compute(self) -> Compute:
        """The machines of a job."""
        return Compute.of_params(
            self.instance_type, self.instance_count, self.max_job_hours, self.spot, self.keep_alive
        )

    def longest_run(self) -> timedelta:
        """The limit of one job, with spot the waiting for machines included."""
        compute = self.compute
        return timedelta(seconds=compute.wait_seconds if compute.spot else compute.max_runtime_seconds)

    def job(
        self, settings: Settings, script: str, values: Mapping[str, str], checkpoints: str, *, final: bool
    ) -> Training:
        """The training job that runs `script`.

        Args:
            values: Its hyperparameters.
            checkpoints: Prefix of its checkpoints, which only spot jobs need.
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
            channels=dataset.training_channels(version, strategy, embeddings, weights, final=final),
            compute=self.compute,
            outputs_uri=settings.s3("jobs/"),
            metrics=hyperparameters.metric_definitions(),
            checkpoint_uri=settings.s3(checkpoints) if self.spot else None,
        )
