"""Make the data set version of some photos: on the worker, or for many of them in a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from ml_pipeline.aws import code_archive, images
from ml_pipeline.aws import s3 as objects
from ml_pipeline.aws.jobs import JobKind
from ml_pipeline.costs import machines
from ml_pipeline.dataset import sources
from ml_pipeline.dataset import upload as uploads
from ml_pipeline.dataset.photos import dataset_name_of
from ml_pipeline.dataset.prepare import Begun, Preparation, on_disk, part_uri
from ml_pipeline.operators.job import JobOptions, Request, SageMakerJobOperator
from ml_pipeline.requests.job import Channel, Compute, DataType
from ml_pipeline.requests.processing import Output, Processing, processing_job
from ml_pipeline.requests.types import Document, Tags, Templated, Uploaded
from ml_pipeline.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context

    from model_code.data.versions.make import Made


class UploadOperator(SageMakerJobOperator[Uploaded]):
    """Make and upload the data set version of the photos in `data`.

    A job makes it if `data` is an s3:// prefix with many photos that no upload has read; it goes on where one that was
    killed had come to. Anything else is made here, by the worker.

    Args:
        data: A folder, an s3:// prefix, or a table of photos.
        dataset_name: Name of the data set; empty: that of the folder.
        seed: Shuffles the split of a new data set.
        group_lookalikes: Keep photos that show the same picture in one split.
        force: Read every file again.
        instance_type: Machine of the job, "auto" or "worker"; see `ml_pipeline.costs.machines.of_preparing`.
    """

    kind = JobKind.PROCESSING
    slug = "prepare"
    template_fields = ("data", "dataset_name", "seed", "group_lookalikes", "force", "instance_type")

    def __init__(
        self,
        *,
        data: Templated,
        dataset_name: Templated = "",
        seed: Templated = 0,
        group_lookalikes: Templated = True,
        force: Templated = False,
        instance_type: Templated = machines.AUTO,
        **kwargs: Unpack[JobOptions],
    ) -> None:
        # Tasks take single values of the result, such as its name.
        kwargs.setdefault("multiple_outputs", True)
        super().__init__(**kwargs)
        self.data = data
        self.dataset_name = dataset_name
        self.seed = seed
        self.group_lookalikes = group_lookalikes
        self.force = force
        self.instance_type = instance_type
        self._begun: Begun | None = None

    def execute(self, context: Context) -> Uploaded:
        """See `SageMakerJobOperator.execute`."""
        # scheduled_retraining uploads without a plan before it.
        objects.ensure_bucket(Settings.load(), self.client("s3"))
        return super().execute(context)

    def identity(self, build: Request) -> Document:
        """Return what the version is made of: neither the photos, which may change, nor the machine."""
        return {
            "data": self.data,
            "name": self.dataset_name,
            "seed": self.seed,
            "lookalikes": self.group_lookalikes,
            "force": self.force,
        }

    def request(self, settings: Settings) -> Request:
        """Return the processing job, which depends on what was listed just before it is created."""

        def build(name: str, tags: Tags) -> Document:
            assert self._begun is not None
            archive = code_archive.publish(self.client("s3"), settings.bucket)
            preparation = self._preparation(settings)
            return prepare_request(
                name,
                tags,
                settings=settings,
                code_uri=settings.s3(archive.key),
                photos_uri=preparation.photos_uri,
                journal_uri=preparation.journal_uri,
                begun=self._begun,
                instance_type=self._machine(),
            )

        return build

    def without_job(self, settings: Settings) -> Uploaded | None:
        """Make the version here, unless a job is to make it."""
        if self._choose(settings) != machines.WORKER:
            return None
        made = uploads.upload(
            self.client("s3"),
            settings.bucket,
            self._name(),
            str(self.data or ""),
            seed=int(self.seed),
            group_lookalikes=self.group_lookalikes,
            force=self.force,
            progress=lambda done, total, unit: self.log.info(
                "progress done=%d total=%d unit=%s", done, total, unit
            ),
        )
        return self._uploaded(made, None)

    def before_create(self, settings: Settings, name: str) -> None:
        """List the photos, and write what the job will read."""
        self._begun = self._preparation(settings).begin(name)

    def is_usable(self, settings: Settings, name: str) -> bool:
        """Return False if photos or decisions are others now, or another version is the newest."""
        return self._preparation(settings).is_current(name)

    def result(self, settings: Settings, description: Document) -> Uploaded:
        """Make the version of the job the newest one."""
        name = description["ProcessingJobName"]
        return self._uploaded(self._preparation(settings).publish(name), name)

    def _name(self) -> str:
        # The form sends null for an empty field.
        return str(self.dataset_name or dataset_name_of(str(self.data or "")))

    def _preparation(self, settings: Settings) -> Preparation:
        from model_code.data.versions.make import Options

        options = Options(
            seed=int(self.seed), group_lookalikes=bool(self.group_lookalikes), force=bool(self.force)
        )
        run = self._task_instance.run_id if self._task_instance else ""
        return Preparation(self.client("s3"), settings, self._name(), str(self.data), options, run)

    def _choose(self, settings: Settings) -> str:
        if self.instance_type == machines.WORKER or not sources.is_prefix(str(self.data or "")):
            return machines.WORKER
        chosen = machines.of_preparing(self.instance_type, self._preparation(settings).unread())
        if chosen != machines.WORKER:
            sources.check_region(self.client("s3"), str(self.data), settings.region)
        return chosen

    def _machine(self) -> str:
        """The machine of a job, also of one after another that has ended: fewer photos may be unread by then."""
        chosen = str(self.instance_type or machines.AUTO)
        return machines.MANY_CORES if chosen == machines.AUTO else chosen

    def _uploaded(self, made: Made, job_name: str | None) -> Uploaded:
        for change in made["changes"]:
            self.log.warning("%s", change)
        for example in made["rejected_examples"]:
            self.log.warning("left out %(path)s: %(reason)s", example)
        # The XCom stays small: the manifest lists the classes.
        return {**made, "classes": len(made["classes"]), "job_name": job_name}  # type: ignore[typeddict-item]


def prepare_request(
    name: str,
    tags: Tags,
    *,
    settings: Settings,
    code_uri: str,
    photos_uri: str,
    journal_uri: str,
    begun: Begun,
    instance_type: str,
) -> Document:
    """Build the CreateProcessingJob request of a job that makes a data set version."""
    channels = [
        Channel("order", part_uri(settings, name, "order/")),
        Channel("photos", photos_uri, bytes=on_disk(begun.files, begun.bytes)),
        Channel("journal", journal_uri),
    ]
    if begun.parent:
        channels.append(Channel("parent", part_uri(settings, name, "parent.manifest"), DataType.MANIFEST))
    if begun.reviewed:
        channels.append(Channel("reviewed", part_uri(settings, name, "reviewed.manifest"), DataType.MANIFEST))
    folder = settings.s3(f"datasets/{begun.name}/")
    job = Processing(
        image=images.training_image(settings, instance_type),
        role_arn=settings.role_arn,
        network=settings.network,
        module="data.versions.prepare",
        code_uri=code_uri,
        channels=channels,
        outputs=[
            Output("shards", f"{folder}shards/", continuous=True),
            Output("thumbnails", f"{folder}thumbnails/", continuous=True),
            Output("journal", journal_uri, continuous=True),
            Output("version", part_uri(settings, name, "version/")),
        ],
        compute=Compute(instance_type),
    )
    return processing_job(name, job, tags)
