"""Train the final model on SageMaker."""

from __future__ import annotations

from functools import partial
from typing import Any

from ml_pipeline.aws.jobs import JobKind
from ml_pipeline.operators.fitting import FittingOperator
from ml_pipeline.operators.job import Request
from ml_pipeline.requests.recipe import Recipe
from ml_pipeline.requests.training import Training, training_job
from ml_pipeline.requests.types import Document, Tags, Templated, Trained
from ml_pipeline.settings import Settings


class TrainingOperator(FittingOperator[Trained]):
    """Refit the best trial's recipe and export `model.tar.gz`.

    The others: see `FittingOperator`.

    Args:
        tuning: Result of tune; its best hyperparameters are used.
    """

    kind = JobKind.TRAINING
    slug = "train"
    template_fields = (*FittingOperator.template_fields, "tuning")

    def __init__(self, *, tuning: Templated, **kwargs: Any) -> None:
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
