"""Evaluate the new model, and the one in service, on the test split through the served runtime."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Unpack

from ml_pipeline.aws import code_archive, images
from ml_pipeline.aws import s3 as objects
from ml_pipeline.aws.jobs import JobKind
from ml_pipeline.dataset import version as dataset
from ml_pipeline.dataset.version import DatasetVersion
from ml_pipeline.operators.job import JobOptions, Request, SageMakerJobOperator
from ml_pipeline.operators.links import ReportLink, object_url
from ml_pipeline.registry import packages as registry
from ml_pipeline.requests.job import DEFAULT_HOURS, Channel, Compute, seconds
from ml_pipeline.requests.processing import INPUT, LONGEST_HOURS, OUTPUT, Output, Processing, processing_job
from ml_pipeline.requests.types import ChampionEvaluated, Document, Evaluated, Tags, Templated
from ml_pipeline.settings import Settings


class EvaluateOperator(SageMakerJobOperator[Evaluated]):
    """Run `model_code.evaluate` on the challenger and, if there is one, the champion.

    Args:
        dataset: Result of upload.
        training: Results of the train tasks; None for the branch that did not run.
        group: Model package group whose newest approved package is the champion.
        max_job_hours: SageMaker stops a job that runs longer.
    """

    kind = JobKind.PROCESSING
    slug = "evaluate"
    operator_extra_links = (*SageMakerJobOperator.operator_extra_links, ReportLink())
    template_fields = ("dataset", "training", "group", "instance_type", "max_job_hours")

    def __init__(
        self,
        *,
        dataset: Templated,
        training: Templated,
        group: Templated,
        instance_type: Templated = "ml.m5.xlarge",
        max_job_hours: Templated = DEFAULT_HOURS,
        **kwargs: Unpack[JobOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.dataset = dataset
        self.training = training
        self.group = group
        self.instance_type = instance_type
        self.max_job_hours = max_job_hours

    @property
    def compute(self) -> Compute:
        """The instance of the job."""
        hours = min(float(self.max_job_hours), LONGEST_HOURS)
        return Compute(self.instance_type, max_runtime_seconds=seconds(hours))

    def longest_run(self) -> timedelta:
        """Return the limit of the job."""
        return timedelta(seconds=self.compute.max_runtime_seconds)

    def request(self, settings: Settings) -> Request:
        """Return the processing job."""
        s3 = self.client("s3")
        archive = code_archive.publish(s3, settings.bucket)
        return partial(
            evaluate_request,
            settings=settings,
            code_uri=settings.s3(archive.key),
            version=dataset.load(s3, self.dataset["manifest_uri"]),
            model_uri=next(model["model_uri"] for model in self.training if model),
            champion_uri=self._champion_uri(),
            compute=self.compute,
        )

    def identity(self, build: Request) -> Document:
        """Return the request without the champion: another run may replace it between two tries of this task."""
        request = super().identity(build)
        inputs = [entry for entry in request["ProcessingInputs"] if entry["InputName"] != "champion"]
        return {**request, "ProcessingInputs": inputs}

    def result(self, settings: Settings, description: Document) -> Evaluated:
        """Return the figures of evaluation.json."""
        s3 = self.client("s3")
        folder = settings.s3(f"jobs/{description['ProcessingJobName']}/evaluation/")
        evaluation = objects.read_json(s3, f"{folder}evaluation.json")
        champions = [
            entry["S3Input"]["S3Uri"]
            for entry in description["ProcessingInputs"]
            if entry["InputName"] == "champion"
        ]
        model = next(
            entry["S3Input"]["S3Uri"]
            for entry in description["ProcessingInputs"]
            if entry["InputName"] == "model"
        )
        champion: ChampionEvaluated | None = None
        if champions:
            figures = objects.read_json(s3, f"{folder}champion/evaluation.json")
            champion = {
                "model_uri": champions[0],
                "accuracy": figures["accuracy"],
                "predictions_uri": f"{folder}champion/predictions.jsonl",
            }
        return {
            "job_name": description["ProcessingJobName"],
            "model_uri": model,
            "evaluation_uri": f"{folder}evaluation.json",
            "predictions_uri": f"{folder}predictions.jsonl",
            "report_uri": f"{folder}report.html",
            "report_url": object_url(settings, f"{folder}report.html"),
            "accuracy": evaluation["accuracy"],
            "accuracy_interval": [evaluation["accuracy_interval"][end] for end in ("low", "high")],
            "top5_accuracy": evaluation["top5_accuracy"],
            "photos": evaluation["photos"],
            "runtime": evaluation["runtime"],
            "champion": champion,
        }

    def _champion_uri(self) -> str | None:
        champion = registry.champion(self.client("sagemaker"), self.group)
        return champion.model_uri if champion else None


def evaluate_request(
    name: str,
    tags: Tags,
    *,
    settings: Settings,
    code_uri: str,
    version: DatasetVersion,
    model_uri: str,
    champion_uri: str | None,
    compute: Compute,
) -> Document:
    """Build the CreateProcessingJob request of an evaluate job."""
    channels = [
        Channel("model", model_uri),
        version.photos_channel("test", "test"),
        version.channel(paths=True),
    ]
    arguments = [
        *("--model", f"{INPUT}/model"),
        *("--test", f"{INPUT}/test"),
        *("--dataset", f"{INPUT}/dataset"),
        *("--output", f"{OUTPUT}/evaluation"),
    ]
    if champion_uri:
        channels.append(Channel("champion", champion_uri))
        arguments += ["--champion", f"{INPUT}/champion"]
    job = Processing(
        image=images.training_image(settings, compute.instance_type),
        role_arn=settings.role_arn,
        network=settings.network,
        module="evaluate",
        code_uri=code_uri,
        channels=channels,
        outputs=[Output("evaluation", settings.s3(f"jobs/{name}/evaluation/"))],
        compute=compute,
        arguments=arguments,
    )
    return processing_job(name, job, tags)
