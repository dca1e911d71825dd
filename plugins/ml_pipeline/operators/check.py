"""Check photos and labels of a data set version before anything is tuned or trained."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Unpack

from airflow.sdk.exceptions import AirflowFailException

from ml_pipeline.aws import code_archive, images
from ml_pipeline.aws import s3 as objects
from ml_pipeline.aws.jobs import JobKind
from ml_pipeline.dataset import version as dataset
from ml_pipeline.dataset.version import DatasetVersion
from ml_pipeline.operators.embed import EMBEDDED_SPLITS, check_folder
from ml_pipeline.operators.job import JobOptions, Request, SageMakerJobOperator
from ml_pipeline.operators.links import ReportLink, object_url
from ml_pipeline.requests.job import Channel, Compute, DataType
from ml_pipeline.requests.processing import INPUT, OUTPUT, Output, Processing, processing_job
from ml_pipeline.requests.types import Checked, Document, Tags, Templated
from ml_pipeline.settings import Settings
from ml_pipeline.watching import reviews

if TYPE_CHECKING:
    from airflow.sdk import Context


class CheckDataOperator(SageMakerJobOperator[Checked]):
    """Publish what `model_code.check` finds; start a job of its own only where the embed job could not serve.

    Args:
        dataset: Result of the upload task.
        embeddings: Result of the embed task.
        max_suspect_share: Largest share of suspected labels to go on with; None: any.
        instance_type: Machine of the job.
    """

    kind = JobKind.PROCESSING
    slug = "check"
    operator_extra_links = (*SageMakerJobOperator.operator_extra_links, ReportLink())
    template_fields = ("dataset", "embeddings", "max_suspect_share", "instance_type")

    def __init__(
        self,
        *,
        dataset: Templated,
        embeddings: Templated,
        max_suspect_share: Templated = None,
        instance_type: Templated = "ml.m5.xlarge",
        **kwargs: Unpack[JobOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.dataset = dataset
        self.embeddings = embeddings
        self.max_suspect_share = max_suspect_share
        self.instance_type = instance_type

    def execute(self, context: Context) -> Checked:
        """Check, unless nothing was embedded."""
        if not self.embeddings["embedder_id"]:
            self.log.info("no embeddings: the data check needs strategy=head")
            return Checked()
        return super().execute(context)

    def request(self, settings: Settings) -> Request:
        """Build the processing job."""
        archive = code_archive.publish(self.client("s3"), settings.bucket)
        return partial(
            check_request,
            settings=settings,
            code_uri=settings.s3(archive.key),
            version=self._version(),
            embedder_id=self.embeddings["embedder_id"],
            compute=Compute(self.instance_type, max_runtime_seconds=6 * 3600),
        )

    def without_job(self, settings: Settings) -> Checked | None:
        """Return the result if the embed job, or an earlier run, checked this version."""
        return self._publish(settings, None) if self.is_usable(settings, "") else None

    def before_create(self, settings: Settings, name: str) -> None:
        """Write the ManifestFiles of all shards and of their embeddings."""
        s3, version = self.client("s3"), self._version()
        shards = [shard.sha256 for split in EMBEDDED_SPLITS for shard in version.of(split)]
        folder = settings.s3(f"embeddings/{self.embeddings['embedder_id']}/")
        names = {"shards": (version.shards_uri, "tar"), "embeddings": (folder, "safetensors")}
        for kind, (prefix, suffix) in names.items():
            listed = [f"{shard}.{suffix}" for shard in shards]
            objects.write_manifest(s3, manifest_uri(settings, name, kind), prefix, listed)

    def is_usable(self, settings: Settings, name: str) -> bool:
        """Return True if check.json is there: it is written last."""
        return objects.exists(self.client("s3"), f"{self._folder()}check.json")

    def result(self, settings: Settings, description: Document) -> Checked:
        """Read the findings of the job."""
        return self._publish(settings, description["ProcessingJobName"])

    def _version(self) -> DatasetVersion:
        return dataset.load(self.client("s3"), self.dataset["manifest_uri"])

    def _folder(self) -> str:
        return check_folder(self._version(), self.embeddings["embedder_id"])

    def _publish(self, settings: Settings, job_name: str | None) -> Checked:
        folder = self._folder()
        found = objects.read_json(self.client("s3"), f"{folder}check.json")
        report_uri = f"{folder}data_report.html"
        checked = Checked(
            check_uri=folder,
            report_uri=report_uri,
            report_url=object_url(settings, report_uri),
            photos=found["photos"],
            suspects=found["suspects"]["count"],
            suspect_share=found["suspects"]["share"],
            near_duplicates=found["near_duplicates"]["pairs"],
            across_classes=found["near_duplicates"]["across_classes"],
            across_splits=found["near_duplicates"]["across_splits"],
            too_small=len(found["balance"]["too_small"]),
            job_name=job_name,
        )
        self.log.info("%s", summary(checked))
        listed = found["suspects"]["listed"]
        version = self._version()
        added = reviews.enqueue_suspects(
            self.client("s3"), settings.bucket, version.name, version.version, listed
        )
        self.log.info("%d suspected labels added to the review queue", added)
        refuse_over(checked, self.max_suspect_share)
        return checked


def summary(checked: Checked) -> str:
    """Return the findings as one sentence."""
    return (
        f"{checked['suspects']} of {checked['photos']} labels look wrong; {checked['near_duplicates']} pairs of the "
        f"same picture, {checked['across_classes']} of them with two labels, {checked['across_splits']} in two "
        f"splits: {checked['report_url']}"
    )


def refuse_over(checked: Checked, max_suspect_share: float | None) -> None:
    """Stop a run whose labels are worse than it allows.

    Raises:
        AirflowFailException: More labels look wrong; another try would find the same.
    """
    if max_suspect_share is not None and checked["suspect_share"] > float(max_suspect_share):
        raise AirflowFailException(
            f"{100 * checked['suspect_share']:.1f} % of the labels look wrong, max_suspect_share allows "
            f"{100 * float(max_suspect_share):.1f} %: correct those listed in {checked['report_url']} and run again, "
            "or raise max_suspect_share"
        )


def manifest_uri(settings: Settings, name: str, kind: str) -> str:
    """Return the s3:// URI of the list of shards or embeddings of job `name`."""
    return settings.s3(f"jobs/{name}/{kind}.manifest")


def check_request(
    name: str,
    tags: Tags,
    *,
    settings: Settings,
    code_uri: str,
    version: DatasetVersion,
    embedder_id: str,
    compute: Compute,
) -> Document:
    """Build the CreateProcessingJob request of a check job."""
    photos = version.bytes(*EMBEDDED_SPLITS)  # no embedding is larger than its photo
    listed = [
        Channel(kind, manifest_uri(settings, name, kind), DataType.MANIFEST, bytes=photos)
        for kind in ("shards", "embeddings")
    ]
    job = Processing(
        image=images.training_image(settings, compute.instance_type),
        role_arn=settings.role_arn,
        network=settings.network,
        module="check",
        code_uri=code_uri,
        channels=[*listed, version.channel(paths=True)],
        outputs=[Output("check", check_folder(version, embedder_id))],
        compute=compute,
        arguments=[
            *("--shards", f"{INPUT}/shards", "--embeddings", f"{INPUT}/embeddings"),
            *("--dataset", f"{INPUT}/dataset", "--output", f"{OUTPUT}/check"),
        ],
    )
    return processing_job(name, job, tags)
