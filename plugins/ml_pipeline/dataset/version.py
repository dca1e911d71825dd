"""A version of a data set as the Airflow side sees it: its manifest, and the channels that jobs read it
through.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ml_pipeline.aws import s3 as objects
from ml_pipeline.requests.job import Channel, DataType, Distribution

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Shard:
    """One shard of the manifest."""

    sha256: str
    split: str
    photos: int
    bytes: int


@dataclass(frozen=True)
class DatasetVersion:
    """One version: what the manifest lists.

    Attributes:
        manifest_uri: s3:// URI of manifest.json.
        classes: Class names in order.
        counts: Photos by split and class.
    """

    name: str
    version: str
    manifest_uri: str
    classes: tuple[str, ...]
    counts: Mapping[str, Mapping[str, int]]
    shards: tuple[Shard, ...]

    def of(self, split: str) -> list[Shard]:
        """The shards of one split, in order."""
        return [shard for shard in self.shards if shard.split == split]

    def photos(self, split: str) -> int:
        """Photos of one split."""
        return sum(self.counts[split].values())

    @property
    def folder(self) -> str:
        """The version's folder, with a trailing slash."""
        return self.manifest_uri.rsplit("/", 1)[0] + "/"

    @property
    def shards_uri(self) -> str:
        """The prefix under which the data set's shards lie."""
        return self.manifest_uri.split("/versions/", 1)[0] + "/shards/"

    def channel(self) -> Channel:
        """manifest.json itself."""
        return Channel("dataset", self.manifest_uri)

    def photos_channel(
        self, name: str, split: str, distribution: Distribution = Distribution.FULL
    ) -> Channel:
        """The shards of a split."""
        return Channel(name, f"{self.folder}{split}.manifest", DataType.MANIFEST, distribution)

    def calibration_channel(self) -> Channel:
        """One training shard, for the ranges of int8."""
        return Channel("calibration", f"{self.shards_uri}{self.of('train')[0].sha256}.tar")


def load(s3: Any, manifest_uri: str) -> DatasetVersion:
    """Read a version's manifest.

    Raises:
        ValueError: The manifest was written by a newer release.
    """
    document = objects.read_json(s3, manifest_uri)
    if document["schema_version"] > SCHEMA_VERSION:
        raise ValueError(
            f"{manifest_uri} has schema_version {document['schema_version']}, this release reads up to "
            f"{SCHEMA_VERSION}; update ml-pipeline"
        )
    return DatasetVersion(
        name=document["name"],
        version=document["version"],
        manifest_uri=manifest_uri,
        classes=tuple(document["classes"]),
        counts=document["counts"],
        shards=tuple(
            Shard(entry["sha256"], entry["split"], entry["photos"], entry["bytes"])
            for entry in document["shards"]
        ),
    )


def training_channels(
    dataset: DatasetVersion,
    strategy: str,
    embeddings_uri: str | None,
    weights_uri: str | None,
    final: bool,
) -> list[Channel]:
    """The channels of a trial, or of the final training job (docs/contracts.md, "Jobs").

    Args:
        strategy: "head" reads embeddings, "finetune" photos.
        embeddings_uri: Folder with train.manifest and valid.manifest of this version; for "head".
        weights_uri: The backbone's weights, or None for an untrained one.
        final: The final job also reads photos, to calibrate and to judge what it exports.

    Raises:
        ValueError: "head" without embeddings.
    """
    if strategy == "head":
        if not embeddings_uri:
            raise ValueError("strategy=head trains on embeddings: run the embed task first")
        channels = [
            Channel(split, f"{embeddings_uri.rstrip('/')}/{split}.manifest", DataType.MANIFEST)
            for split in ("train", "valid")
        ]
    else:
        channels = [dataset.photos_channel(split, split) for split in ("train", "valid")]
    channels.append(dataset.channel())
    if weights_uri and (final or strategy != "head"):
        channels.append(Channel("weights", weights_uri))
    if final:
        channels += [dataset.calibration_channel(), dataset.photos_channel("valid_photos", "valid")]
    return channels
