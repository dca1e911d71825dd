"""Predict a folder of photos with the champion."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Unpack

from ml_pipeline.aws import s3 as objects
from ml_pipeline.aws.jobs import JobKind, ensure
from ml_pipeline.dataset import batch
from ml_pipeline.operators.aws import origin_of
from ml_pipeline.operators.job import JobOptions, Request, SageMakerJobOperator
from ml_pipeline.registry import packages as registry
from ml_pipeline.requests import endpoint, names
from ml_pipeline.requests.endpoint import Serving
from ml_pipeline.requests.job import Compute
from ml_pipeline.requests.transform import transform_job
from ml_pipeline.requests.types import Document, Tags, Templated, Transformed
from ml_pipeline.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context


class TransformOperator(SageMakerJobOperator[Transformed]):
    """Run a batch transform job over staged photos.

    Args:
        group: Model package group whose champion predicts; empty: the only one that has a champion.
        staged: Result of stage.
        instance_type, instance_count: Instances.
    """

    kind = JobKind.TRANSFORM
    slug = "predict"
    template_fields = ("group", "staged", "instance_type", "instance_count")

    def __init__(
        self,
        *,
        group: Templated,
        staged: Templated,
        instance_type: Templated = "ml.m5.large",
        instance_count: Templated = 1,
        **kwargs: Unpack[JobOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.group = group
        self.staged = staged
        self.instance_type = instance_type
        self.instance_count = instance_count
        self._tags: Tags = []

    def execute(self, context: Context) -> Transformed:
        """See `SageMakerJobOperator.execute`."""
        self._tags = names.tags(origin_of(context))
        return super().execute(context)

    def request(self, settings: Settings) -> Request:
        """Return the transform job with the champion's model."""
        group = self.group or self._only_group(settings)
        champion = registry.champion(self.client("sagemaker"), group)
        if champion is None:
            raise ValueError(
                f"the data set {group!r} has no approved model: run train_and_deploy with dataset_name={group}, or "
                "approve one of its models"
            )
        registry.refuse_overwritten(self.client("s3"), champion)
        return partial(
            _request,
            model_name=self._ensure_model(settings, champion),
            settings=settings,
            compute=Compute(self.instance_type, int(self.instance_count)),
        )

    def identity(self, build: Request) -> Document:
        """Return the request without the model, and with the photos.

        The champion may change between two tries of this task. The request itself names the photos only through a
        manifest that is named after the job.
        """
        photos = {"PhotosUri": self.staged["photos_uri"]}
        return {**super().identity(build), "ModelName": names.PLACEHOLDER, **photos}

    def before_create(self, settings: Settings, name: str) -> None:
        """Write the ManifestFile of the photos."""
        s3, photos_uri = self.client("s3"), self.staged["photos_uri"]
        photos = [key for key, size in batch.files(s3, photos_uri) if not batch.refusal(size)]
        if not photos:
            raise ValueError(
                f"none of the files at {photos_uri} can be predicted: they are empty or too large"
            )
        objects.write_manifest(s3, photos_manifest(settings, name), photos_uri, photos)

    def result(self, settings: Settings, description: Document) -> Transformed:
        """Return the address of the answers."""
        return {
            "transform_job_name": description["TransformJobName"],
            "output_uri": description["TransformOutput"]["S3OutputPath"],
            "model_name": description["ModelName"],
            "photos_uri": self.staged["photos_uri"],
        }

    def _only_group(self, settings: Settings) -> str:
        """Return the only data set that has an approved model."""
        names = objects.folders(self.client("s3"), settings.s3("datasets/"))
        found = [name for name in names if registry.champion(self.client("sagemaker"), name)]
        if len(found) == 1:
            return found[0]
        if not found:
            raise ValueError(
                "no data set has an approved model: run train_and_deploy, or approve one of its models"
            )
        raise ValueError(
            f"several data sets have an approved model: give dataset_name, one of {', '.join(found)}"
        )

    def _ensure_model(self, settings: Settings, champion: registry.Package) -> str:
        serving = Serving(
            endpoint_name=names.slug(champion.metadata.get("dataset_name") or self.group, 40),
            model_uri=champion.model_uri,
            image=champion.image,
            role_arn=settings.role_arn,
            network=settings.network,
            instance_type=self.instance_type,
        )
        client = self.client("sagemaker")
        ensure(
            lambda: client.describe_model(ModelName=serving.model_name),
            lambda: client.create_model(**endpoint.model(serving, self._tags)),
        )
        return serving.model_name


def photos_manifest(settings: Settings, name: str) -> str:
    """Return the address of the list of photos that job `name` predicts."""
    return settings.s3(f"batch/{name}/photos.manifest")


def _request(name: str, tags: Tags, *, model_name: str, settings: Settings, compute: Compute) -> Document:
    manifest_uri, answers_uri = photos_manifest(settings, name), settings.s3(f"batch/{name}/answers/")
    return transform_job(name, model_name, manifest_uri, answers_uri, compute, tags, settings.network)
