"""A version of a data set as the Airflow side sees it: its manifest, and the channels that jobs read it through."""

from __future__ import annotations

from dataclasses import dataclass

from ml_pipeline.aws import s3 as objects
from ml_pipeline.aws.clients import Client
from ml_pipeline.requests.job import Channel, DataType, Distribution
from ml_pipeline.requests.types import Embedded
from model_code.data.manifest import Manifest, ShardRow
from model_code.data.shards import Split


@dataclass(frozen=True)
class DatasetVersion:
    """One version of a data set.

    Attributes:
        manifest: Its manifest.
        manifest_uri: s3:// URI of manifest.json.
    """

    manifest: Manifest
    manifest_uri: str

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """Digest that names the version."""
        return self.manifest.version

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in order."""
        return self.manifest.classes

    def of(self, split: str) -> list[ShardRow]:
        """Return the shards of one split, in order."""
        return self.manifest.of(Split(split))

    def photos(self, split: str) -> int:
        """Return the number of photos of one split."""
        return self.manifest.photos(Split(split))

    def bytes(self, *splits: str) -> int:
        """Return the size of the shards of some splits."""
        return sum(shard.bytes for split in splits for shard in self.of(split))

    @property
    def folder(self) -> str:
        """URI of the version's folder, with a trailing slash."""
        return self.manifest_uri.rsplit("/", 1)[0] + "/"

    @property
    def shards_uri(self) -> str:
        """URI prefix of the data set's shards."""
        return self.manifest_uri.split("/versions/", 1)[0] + "/shards/"

    def channel(self, paths: bool = False) -> Channel:
        """Return the channel of manifest.json itself, or of its folder, whose files tell the paths of the photos."""
        return Channel("dataset", self.folder if paths else self.manifest_uri)

    def photos_channel(
        self, name: str, split: str, distribution: Distribution = Distribution.FULL
    ) -> Channel:
        """Return the channel of the shards of a split."""
        uri = f"{self.folder}{split}.manifest"
        return Channel(name, uri, DataType.MANIFEST, distribution, self.bytes(split), self.shards_uri)

    def calibration_channel(self) -> Channel:
        """Return the channel of one training shard, for the ranges of int8."""
        return Channel("calibration", f"{self.shards_uri}{self.of('train')[0].sha256}.tar")


def load(s3: Client, manifest_uri: str) -> DatasetVersion:
    """Read a version's manifest.

    Raises:
        ManifestError: The manifest is damaged, or was written by a newer release.
    """
    return DatasetVersion(Manifest.from_json(objects.read(s3, manifest_uri)), manifest_uri)


def training_channels(
    dataset: DatasetVersion,
    strategy: str,
    embeddings_uri: str | None,
    weights_uri: str | None,
    final: bool,
    teacher: Embedded | None = None,
) -> list[Channel]:
    """Return the channels of a trial, or of the final training job (docs/contracts.md, "Jobs").

    Args:
        dataset: The version to train on.
        strategy: "head" reads embeddings, "finetune" photos.
        embeddings_uri: Folder with train.manifest and valid.manifest of this version; for "head".
        weights_uri: The backbone's weights, whose classifier is the prior of a head; None for an untrained one.
        final: The final job also reads photos: to calibrate and evaluate what it exports, and, once the model is
            made, test photos for the reference that served photos are compared with.
        teacher: Result of embed_teacher; None or one without embeddings: there is no teacher.

    Raises:
        ValueError: "head" without embeddings.
    """
    if strategy == "head":
        if not embeddings_uri:
            raise ValueError("strategy=head trains on embeddings: run the embed task first")
        channels = _embedded(dataset, "", embeddings_uri)
    else:
        channels = [dataset.photos_channel(split, split) for split in ("train", "valid")]
    channels.append(dataset.channel())
    if weights_uri:
        channels.append(Channel("weights", weights_uri))
    if teacher and teacher["embeddings_uri"]:
        channels += _embedded(dataset, "teacher_", teacher["embeddings_uri"])
        if teacher["weights_uri"]:
            channels.append(Channel("teacher_weights", teacher["weights_uri"]))
    if final:
        channels += [
            dataset.calibration_channel(),
            dataset.photos_channel("valid_photos", "valid"),
            dataset.photos_channel("reference_photos", "test"),
        ]
    return channels


# Of a photo: 8 views of 2,048 numbers in float32.
_EMBEDDED_BYTES = 2**16


def _embedded(dataset: DatasetVersion, prefix: str, embeddings_uri: str) -> list[Channel]:
    return [
        Channel(
            f"{prefix}{split}",
            f"{embeddings_uri.rstrip('/')}/{split}.manifest",
            DataType.MANIFEST,
            bytes=min(dataset.bytes(split), dataset.photos(split) * _EMBEDDED_BYTES),
        )
        for split in ("train", "valid")
    ]
