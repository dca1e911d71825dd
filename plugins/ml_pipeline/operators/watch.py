"""Look at what an endpoint was asked since the last look."""

from __future__ import annotations

from functools import partial
from typing import Unpack

from ml_pipeline.aws import code_archive, images
from ml_pipeline.aws import s3 as objects
from ml_pipeline.aws.jobs import JobKind
from ml_pipeline.dataset import version as dataset
from ml_pipeline.dataset.version import DatasetVersion
from ml_pipeline.operators.job import JobOptions, Request, SageMakerJobOperator
from ml_pipeline.requests.job import Channel, Compute, DataType
from ml_pipeline.requests.names import fingerprint
from ml_pipeline.requests.processing import INPUT, OUTPUT, Output, Processing, processing_job
from ml_pipeline.requests.types import Document, Tags, Templated
from ml_pipeline.settings import Settings
from ml_pipeline.watching import looks
from ml_pipeline.watching.looks import Begun, Looked


class WatchOperator(SageMakerJobOperator[Looked]):
    """Run `model_code.watch` on the captures of one look.

    Returns `{"begun", "look_uri"}`.

    Args:
        begun: Returned by `ml_pipeline.watching.looks.begin`.
        instance_type: "ml.m5.large".
        least_photos, sample_photos, queue_photos: See `model_code.watch.look.Task`.
    """

    kind = JobKind.PROCESSING
    slug = "watch"
    template_fields = ("begun", "instance_type", "least_photos", "sample_photos", "queue_photos")

    def __init__(
        self,
        *,
        begun: Templated,
        instance_type: Templated = "ml.m5.large",
        least_photos: Templated = 20,
        sample_photos: Templated = 1000,
        queue_photos: Templated = 20,
        **kwargs: Unpack[JobOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.begun = begun
        self.instance_type = instance_type
        self.least_photos = least_photos
        self.sample_photos = sample_photos
        self.queue_photos = queue_photos

    def request(self, settings: Settings) -> Request:
        """Return the processing job."""
        s3 = self.client("s3")
        archive = code_archive.publish(s3, settings.bucket)
        begun: Begun = self.begun
        versions = settings.s3(f"datasets/{begun['dataset_name']}/versions/")
        manifest = f"{versions}{begun['dataset_version']}/manifest.json"
        if not objects.exists(s3, manifest):
            # A photo of it was forgotten; photos keep their split in every version.
            newest = objects.read_json(s3, settings.s3(f"datasets/{begun['dataset_name']}/latest.json"))
            manifest = f"{versions}{newest['version']}/manifest.json"
        reference = reference_uri(settings, begun)
        truth = settings.s3(f"datasets/{begun['dataset_name']}/truth/")
        reviewed = settings.s3(f"datasets/{begun['dataset_name']}/reviews/answers/")
        return partial(
            watch_request,
            settings=settings,
            code_uri=settings.s3(archive.key),
            version=dataset.load(s3, manifest),
            begun=begun,
            known_reference=reference if objects.exists(s3, f"{reference}reference.safetensors") else None,
            truth_uri=truth if next(objects.keys(s3, truth), None) else None,
            reviewed_uri=reviewed if next(objects.keys(s3, reviewed), None) else None,
            compute=Compute(self.instance_type, max_runtime_seconds=2 * 3600),
            arguments=[
                *("--least", str(self.least_photos), "--sample", str(self.sample_photos)),
                *("--queue", str(self.queue_photos)),
            ],
        )

    def identity(self, build: Request) -> Document:
        """Return the request without what another look may leave meanwhile: a reference, and labels."""
        request = super().identity(build)
        kept = [
            entry
            for entry in request["ProcessingInputs"]
            if entry["InputName"] not in ("reference", "test", "truth", "accepted", "reviewed")
        ]
        arguments = {**request["AppSpecification"], "ContainerArguments": []}
        return {**request, "ProcessingInputs": kept, "AppSpecification": arguments}

    def result(self, settings: Settings, description: Document) -> Looked:
        """Return the look that was begun, and the folder of its results."""
        name = description["ProcessingJobName"]
        return {"begun": self.begun, "look_uri": settings.s3(f"jobs/{name}/look/")}


def reference_uri(settings: Settings, begun: Begun) -> str:
    """Return the prefix of the reference of a model; jobs may write below `jobs/` alone."""
    return settings.s3(f"jobs/references/{fingerprint(begun['model_uri'])}/")


def watch_request(
    name: str,
    tags: Tags,
    *,
    settings: Settings,
    code_uri: str,
    version: DatasetVersion,
    begun: Begun,
    known_reference: str | None,
    truth_uri: str | None,
    reviewed_uri: str | None,
    compute: Compute,
    arguments: list[str],
) -> Document:
    """Return the CreateProcessingJob request of a watch job."""
    manifest = looks.manifest_uri(settings.bucket, begun["endpoint_name"], begun["number"])
    channels = [Channel("captures", manifest, DataType.MANIFEST), Channel("model", begun["model_uri"])]
    outputs = [Output("look", settings.s3(f"jobs/{name}/look/"))]
    arguments = [
        *("--captures", f"{INPUT}/captures", "--model", f"{INPUT}/model", "--output", OUTPUT),
        *("--level", repr(begun["level"]), "--number", str(begun["number"])),
        *("--title", f"{begun['endpoint_name']}, look {begun['number']}"),
        *arguments,
    ]
    if known_reference:
        channels.append(Channel("reference", known_reference))
        arguments += ["--reference", f"{INPUT}/reference"]
    else:
        channels.append(version.photos_channel("test", "test"))
        arguments += ["--test", f"{INPUT}/test"]
        outputs.append(Output("reference", reference_uri(settings, begun)))
        if begun.get("accepted"):
            manifest = looks.manifest_uri(
                settings.bucket, begun["endpoint_name"], begun["number"], "accepted"
            )
            channels.append(Channel("accepted", manifest, DataType.MANIFEST))
            arguments += ["--accepted", f"{INPUT}/accepted"]
            if reviewed_uri:
                channels.append(Channel("reviewed", reviewed_uri))
                arguments += ["--reviewed", f"{INPUT}/reviewed"]
    if truth_uri:
        channels.append(Channel("truth", truth_uri))
        arguments += ["--truth", f"{INPUT}/truth"]
    job = Processing(
        image=images.training_image(settings, compute.instance_type),
        role_arn=settings.role_arn,
        network=settings.network,
        module="watch",
        code_uri=code_uri,
        channels=channels,
        outputs=outputs,
        compute=compute,
        arguments=arguments,
    )
    return processing_job(name, job, tags)
