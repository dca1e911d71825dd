"""Embed the photos of a data set version, each photo only once per embedder."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Unpack

from ml_pipeline.aws import code_archive, images
from ml_pipeline.aws import s3 as objects
from ml_pipeline.aws.jobs import JobKind
from ml_pipeline.dataset import version as dataset
from ml_pipeline.dataset.version import DatasetVersion
from ml_pipeline.operators.job import JobOptions, Request, SageMakerJobOperator
from ml_pipeline.requests.job import Channel, Compute, DataType, Distribution
from ml_pipeline.requests.processing import INPUT, OUTPUT, Output, Processing, processing_job
from ml_pipeline.requests.types import Document, Embedded, Tags, Templated
from ml_pipeline.settings import Settings
from model_code.data.manifest import ShardRow

if TYPE_CHECKING:
    from airflow.sdk import Context

TAUGHT_SPLITS = ("train", "valid")
# The test split is embedded for the data check alone, which looks for copies across splits: nothing trains on it.
EMBEDDED_SPLITS = (*TAUGHT_SPLITS, "test")


class EmbedOperator(SageMakerJobOperator[Embedded]):
    """Run `model_code.embed` over the shards without embeddings; start nothing if none is missing.

    Args:
        dataset: Result of upload.
        weights: Result of weights.
        strategy: "head" or "finetune".
        architecture: Name of the backbone in torchvision.
        views: Views of each training photo.
        force: Embed everything again.
        instance_type: "ml.g4dn.xlarge".
        instance_count: Instances that share the shards.
        teacher: Embed for a teacher: with any strategy, if `architecture` is not empty, without the data check.
    """

    kind = JobKind.PROCESSING
    slug = "embed"
    template_fields = (
        "dataset",
        "weights",
        "strategy",
        "architecture",
        "views",
        "force",
        "instance_type",
        "instance_count",
    )

    def __init__(
        self,
        *,
        dataset: Templated,
        weights: Templated,
        strategy: Templated,
        architecture: Templated,
        views: Templated = 1,
        force: Templated = False,
        instance_type: Templated = "ml.m5.xlarge",
        instance_count: Templated = 1,
        teacher: bool = False,
        **kwargs: Unpack[JobOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.dataset = dataset
        self.weights = weights
        self.strategy = strategy
        self.architecture = architecture
        self.views = views
        self.force = force
        self.instance_type = instance_type
        self.instance_count = instance_count
        self.teacher = teacher

    def execute(self, context: Context) -> Embedded:
        """See `SageMakerJobOperator.execute`."""
        if not self.architecture or (self.strategy != "head" and not self.teacher):
            why = f"strategy={self.strategy} reads photos" if self.architecture else "no teacher"
            self.log.info("%s: nothing to embed", why)
            return {
                "embedder_id": None,
                "embeddings_uri": None,
                "weights_uri": None,
                "shards": 0,
                "embedded": 0,
                "job_name": None,
            }
        return super().execute(context)

    def request(self, settings: Settings) -> Request:
        """Return the processing job. The list of missing shards is not part of it, so every retry has the same name."""
        archive = code_archive.publish(self.client("s3"), settings.bucket)
        return partial(
            embed_request,
            settings=settings,
            code_uri=settings.s3(archive.key),
            embeddings_uri=self._folder(settings),
            architecture=self.architecture,
            weights_uri=self.weights["uri"],
            views=self.views,
            version=self._version(),
            compute=Compute(self.instance_type, int(self.instance_count), max_runtime_seconds=6 * 3600),
            check=not self.teacher,
        )

    def without_job(self, settings: Settings) -> Embedded | None:
        """Return the result if every shard is embedded already."""
        return None if self._missing(settings) else self._publish(settings, embedded=0, job_name=None)

    def before_create(self, settings: Settings, name: str) -> None:
        """Write the ManifestFile of the shards that are missing."""
        version = self._version()
        objects.write_manifest(
            self.client("s3"),
            missing_manifest(settings, name),
            version.shards_uri,
            [f"{shard.sha256}.tar" for shard in self._missing(settings)],
        )

    def is_usable(self, settings: Settings, name: str) -> bool:
        """Return False if embeddings are missing after all: expired, or of shards that the job could not read."""
        return not self._absent(settings)

    def result(self, settings: Settings, description: Document) -> Embedded:
        """Check that nothing is missing and publish the version's manifests."""
        name = description["ProcessingJobName"]
        wanted = objects.read_json(self.client("s3"), missing_manifest(settings, name))[1:]
        missing = self._absent(settings)
        if missing:
            raise RuntimeError(
                f"job {name} completed without embedding {len(missing)} shards, first {missing[0].sha256}; "
                "clear this task to embed them"
            )
        return self._publish(settings, embedded=len(wanted), job_name=name)

    def _version(self) -> DatasetVersion:
        return dataset.load(self.client("s3"), self.dataset["manifest_uri"])

    def _embedder_id(self) -> str:
        from model_code.data.transform import for_architecture
        from model_code.embed.embeddings import embedder_id

        transform = for_architecture(self.architecture)
        return embedder_id(self.architecture, self.weights["sha256"], transform, int(self.views))

    def _folder(self, settings: Settings) -> str:
        return settings.s3(f"embeddings/{self._embedder_id()}/")

    def _missing(self, settings: Settings) -> list[ShardRow]:
        return self._shards() if self.force else self._absent(settings)

    def _absent(self, settings: Settings) -> list[ShardRow]:
        there = set(objects.keys(self.client("s3"), self._folder(settings)))
        return [shard for shard in self._shards() if f"{shard.sha256}.safetensors" not in there]

    def _shards(self) -> list[ShardRow]:
        version = self._version()
        return [shard for split in self._splits() for shard in version.of(split)]

    def _splits(self) -> tuple[str, ...]:
        return TAUGHT_SPLITS if self.teacher else EMBEDDED_SPLITS

    def _publish(self, settings: Settings, embedded: int, job_name: str | None) -> Embedded:
        s3, version, folder = self.client("s3"), self._version(), self._folder(settings)
        of_version = f"{folder}versions/{version.version}"
        for split in self._splits():
            files = [f"{shard.sha256}.safetensors" for shard in version.of(split)]
            objects.write_manifest(s3, f"{of_version}/{split}.manifest", folder, files)
        return {
            "embedder_id": self._embedder_id(),
            "embeddings_uri": of_version,
            "weights_uri": self.weights["uri"],
            "shards": len(self._shards()),
            "embedded": embedded,
            "job_name": job_name,
        }


def missing_manifest(settings: Settings, name: str) -> str:
    """Return the address of the list of shards that job `name` embeds."""
    return settings.s3(f"jobs/{name}/shards.manifest")


def check_folder(version: DatasetVersion, embedder_id: str) -> str:
    """Return the s3:// prefix of the findings of the data check of `version`."""
    return f"{version.folder}check/{embedder_id}/"


def embed_request(
    name: str,
    tags: Tags,
    *,
    settings: Settings,
    code_uri: str,
    embeddings_uri: str,
    architecture: str,
    weights_uri: str | None,
    views: int,
    version: DatasetVersion,
    compute: Compute,
    check: bool = True,
) -> Document:
    """Build the CreateProcessingJob request of an embed job; `check`: that also checks the data, if it can."""
    channels = [
        # All shards, not the missing ones: a retry, which misses fewer, has to ask for the same job.
        Channel(
            "shards",
            missing_manifest(settings, name),
            DataType.MANIFEST,
            Distribution.SHARDED,
            version.bytes(*EMBEDDED_SPLITS),
        ),
    ]
    arguments = ["--architecture", architecture, "--views", str(views), "--shards", f"{INPUT}/shards"]
    outputs = [Output("embeddings", embeddings_uri, continuous=True)]
    checks = check and compute.instance_count == 1
    if checks:
        # The job has photos and embeddings at hand: it checks the data too, if these are all of the version's.
        channels.append(version.channel(paths=True))
        arguments += ["--embed", "--embeddings", f"{OUTPUT}/embeddings", "--output", f"{OUTPUT}/check"]
        arguments += ["--dataset", f"{INPUT}/dataset"]
        embedder = embeddings_uri.rstrip("/").rpartition("/")[2]
        outputs.append(Output("check", check_folder(version, embedder)))
    else:
        arguments += ["--output", f"{OUTPUT}/embeddings"]
    if weights_uri:
        channels.append(Channel("weights", weights_uri))
        arguments += ["--weights", f"{INPUT}/weights"]
    job = Processing(
        image=images.training_image(settings, compute.instance_type),
        role_arn=settings.role_arn,
        network=settings.network,
        module="check" if checks else "embed",
        code_uri=code_uri,
        channels=channels,
        outputs=outputs,
        compute=compute,
        arguments=arguments,
    )
    return processing_job(name, job, tags)
