"""Train the model that will be served, on SageMaker."""

from __future__ import annotations

from functools import partial
from typing import Any

from ml_pipeline.aws.jobs import JobKind
from ml_pipeline.operators.fitting import FittingOperator
from ml_pipeline.operators.job import Request
from ml_pipeline.requests.recipe import Recipe
from ml_pipeline.requests.training import Training, training_job
from ml_pipeline.settings import Settings


class TrainingOperator(FittingOperator):
    """Refit the best trial's recipe and export `model.tar.gz`.

    Returns `{"training_job_name", "model_uri", "billable_seconds", "metrics": {name: value}}`.

    :param tuning: what the tune task returned; its best hyperparameters are used.

    The others: see `FittingOperator`.
    """

    kind = JobKind.TRAINING
    slug = "train"
    template_fields = (*FittingOperator.template_fields, "tuning")

    def __init__(self, *, tuning: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tuning = tuning

    def request(self, settings: Settings) -> Request:
        """The training job; see `requests.training`."""
        values = Recipe(**self.recipe).of_final(self.tuning["best_hyperparameters"])
        return partial(_request, job=self.job(settings, "train.py", values, "jobs/", final=True))

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
