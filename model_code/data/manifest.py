"""A version of a data set: its manifest and the lines of its list of photos.

Standard library only: Airflow reads manifests too.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from model_code.data.records import Fractions, Rejected
from model_code.data.shards import Split
from model_code.data.versions.changes import ChangeKind, ClassChange, Move

# 2: lineage, moves and changes.
SCHEMA_VERSION = 2
# Part of every version's name: raising it would rename the versions of earlier releases.
_IDENTITY = 1
_HASH_DIGITS = 16


class ManifestError(ValueError):
    """A manifest that is damaged or too new for this release."""


@dataclass(frozen=True, slots=True)
class PhotoRow:
    """A line of photos.jsonl. `shard` is the SHA-256 of the photo's shard; `phash` has 16 hex digits."""

    key: str
    sha256: str
    label: str
    split: Split
    shard: str
    phash: str | None

    def to_line(self) -> str:
        """Return one line of JSON, without the line break."""
        fields = asdict(self)
        fields["class"] = fields.pop("label")
        return json.dumps(fields, sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_line(cls, line: str) -> PhotoRow:
        """Inverse of `to_line`.

        Raises:
            ManifestError: The line is damaged.
        """
        try:
            fields = json.loads(line)
            return cls(
                key=fields["key"],
                sha256=fields["sha256"],
                label=fields["class"],
                split=Split(fields["split"]),
                shard=fields["shard"],
                phash=fields["phash"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ManifestError(f"damaged line in photos.jsonl: {line[:80]!r}") from error


@dataclass(frozen=True)
class ShardRow:
    """A shard of a version: its digest, its key in the bucket, its split, photos and bytes."""

    sha256: str
    key: str
    split: Split
    photos: int
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """A version of a data set, as in `schemas/manifest.schema.json`.

    Attributes:
        name: Name of the data set.
        parent: The version that this one grew from.
        seed: Shuffled the photos that were new.
        fractions: Of validation and test.
        classes: Class names in order.
        counts: Photos as {split: {class: photos}}.
        shards: The files of the version.
        photos_sha256: SHA-256 of photos.jsonl.
        rejected: Files left out.
        lineage: All earlier versions, oldest first.
        moves: Photos that changed their split, in this or an earlier version.
        changes: Classes renamed, merged or relabeled since the parent.
        corrected: Number of labels that came from the log of corrections.
    """

    name: str
    parent: str | None
    seed: int
    fractions: Fractions
    classes: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    shards: tuple[ShardRow, ...]
    photos_sha256: str
    rejected: tuple[Rejected, ...]
    lineage: tuple[str, ...] = ()
    moves: tuple[Move, ...] = ()
    changes: tuple[ClassChange, ...] = ()
    corrected: int = 0

    @property
    def version(self) -> str:
        """16 hex digits: the hash of the contents, independent of the data set's name."""
        listed = {
            "schema_version": _IDENTITY,
            "seed": self.seed,
            "fractions": self.fractions.to_dict(),
            "classes": self.classes,
            "shards": sorted(shard.sha256 for shard in self.shards),
            "photos_sha256": self.photos_sha256,
        }
        return hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()[:_HASH_DIGITS]

    def of(self, split: Split) -> list[ShardRow]:
        """Return the shards of one split, in order."""
        return [shard for shard in self.shards if shard.split is split]

    def photos(self, split: Split) -> int:
        """Return the number of photos of one split."""
        return sum(self.counts[split].values())

    def seen_by(self, version: str | None) -> frozenset[str]:
        """Keys of test photos that a model of an earlier version may have been trained or tuned on.

        Args:
            version: Of this data set; None or a version outside the lineage counts as the oldest.
        """
        order = {name: place for place, name in enumerate((*self.lineage, self.version))}
        place = order.get(version or "", -1)
        return frozenset(
            move.key
            for move in self.moves
            if move.after is Split.TEST and place <= order.get(move.until, len(order))
        )

    @property
    def total_bytes(self) -> int:
        """Size of all shards."""
        return sum(shard.bytes for shard in self.shards)

    def to_json(self) -> str:
        """Return the text of manifest.json."""
        fields = {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "version": self.version,
            "parent": self.parent,
            "seed": self.seed,
            "fractions": self.fractions.to_dict(),
            "classes": self.classes,
            "counts": self.counts,
            "shards": [asdict(shard) for shard in self.shards],
            "photos_sha256": self.photos_sha256,
            "rejected": [asdict(item) for item in self.rejected],
            "lineage": self.lineage,
            "moves": [asdict(move) for move in self.moves],
            "changes": [asdict(change) for change in self.changes],
            "corrected": self.corrected,
        }
        return json.dumps(fields, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Inverse of `to_json`.

        Raises:
            ManifestError: It is damaged, or written by a newer release.
        """
        try:
            fields = json.loads(text)
            newest = int(fields["schema_version"])
            if newest > SCHEMA_VERSION:
                raise ManifestError(
                    f"the manifest has schema_version {newest}, this release reads up to {SCHEMA_VERSION}; "
                    "update ml-pipeline"
                )
            manifest = cls(
                name=fields["name"],
                parent=fields["parent"],
                seed=fields["seed"],
                fractions=Fractions(fields["fractions"]["valid"], fields["fractions"]["test"]),
                classes=tuple(fields["classes"]),
                counts=fields["counts"],
                shards=tuple(ShardRow(**{**row, "split": Split(row["split"])}) for row in fields["shards"]),
                photos_sha256=fields["photos_sha256"],
                rejected=tuple(Rejected(**item) for item in fields["rejected"]),
                lineage=tuple(fields.get("lineage", ())),
                moves=tuple(
                    Move(item["key"], Split(item["before"]), Split(item["after"]), item["until"])
                    for item in fields.get("moves", ())
                ),
                changes=tuple(
                    ClassChange(**{**item, "kind": ChangeKind(item["kind"])})
                    for item in fields.get("changes", ())
                ),
                corrected=fields.get("corrected", 0),
            )
        except ManifestError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise ManifestError(f"damaged manifest: {error!r}; upload the data set again") from error
        if manifest.version != fields["version"]:
            raise ManifestError(
                f"damaged manifest: its contents are not those of version {fields['version']}"
            )
        return manifest

    def manifest_file(self, split: Split, bucket: str) -> list[dict[str, str] | str]:
        """SageMaker's ManifestFile of one split: a prefix, then the shards below it (S3DataType)."""
        prefix = f"s3://{bucket}/datasets/{self.name}/shards/"
        return [{"prefix": prefix}, *(f"{shard.sha256}.tar" for shard in self.of(split))]


def read_photos_jsonl(data: bytes) -> tuple[PhotoRow, ...]:
    """Read all lines of photos.jsonl at once; `model_code.data.versions.rows` reads a million in less memory.

    Raises:
        ManifestError: A line is damaged.
    """
    return tuple(PhotoRow.from_line(line) for line in data.decode().splitlines())


def read_manifest(path: Path) -> Manifest:
    """Read the manifest at `path`, a file or a folder with manifest.json.

    Raises:
        FileNotFoundError: There is none.
        ManifestError: It is damaged.
    """
    file = path / "manifest.json" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"no manifest.json at {path}; give the data set's manifest with --dataset")
    return Manifest.from_json(file.read_text())


def read_dataset(path: Path | None) -> dict[str, str] | None:
    """Read name and version from a `manifest.json` or the folder that holds one; None where there is none.

    Raises:
        ManifestError: It is damaged.
    """
    file = path / "manifest.json" if path is not None and path.is_dir() else path
    if file is None or not file.is_file():
        return None
    manifest = Manifest.from_json(file.read_text(encoding="utf-8"))
    return {"name": manifest.name, "version": manifest.version}
