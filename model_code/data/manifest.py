"""A version of a data set: its manifest, its list of photos, and the shards of the next version.

Standard library only: Airflow reads manifests too.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from model_code.data.records import Fractions, Photo, Rejected, rank
from model_code.data.shards import Split, pack, tar_bytes
from model_code.data.versions.changes import ChangeKind, ClassChange, Move, class_changes

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


@dataclass(frozen=True)
class Version:
    """A manifest with its photos, and the splits of photos that only earlier versions had."""

    manifest: Manifest
    photos: tuple[PhotoRow, ...]
    retired: Mapping[str, Split]

    def known_splits(self) -> dict[str, Split]:
        """Splits by SHA-256 that the next version has to keep, also for photos that come back."""
        return {**self.retired, **{row.sha256: row.split for row in self.photos}}


@dataclass(frozen=True)
class ShardPlan:
    """A shard that a version needs: its photos in order, and its row if the parent version has it."""

    split: Split
    photos: tuple[Photo, ...]
    kept: ShardRow | None = None


def plan_shards(
    photos: Sequence[Photo], splits: Mapping[str, Split], seed: int, parent: Version | None
) -> list[ShardPlan]:
    """Assign photos to shards: the parent's shards where nothing in them changed, new ones for the rest.

    A shard that lost photos (or whose photos changed class) is written again without touching others; photos
    that the parent lacks go to new shards, in the order of their rank.
    """
    here = {photo.sha256: photo for photo in photos if photo.sha256 in splits}
    plans = _inherited(here, splits, parent)
    placed = {photo.sha256 for plan in plans for photo in plan.photos}
    for split in Split:
        fresh = sorted(
            (photo for sha, photo in here.items() if sha not in placed and splits[sha] is split),
            key=lambda photo: rank(photo.sha256, seed),
        )
        sizes = [tar_bytes(photo.bytes, photo.label) for photo in fresh]
        plans += [ShardPlan(split, tuple(fresh[i] for i in part)) for part in pack(sizes)]
    return plans


def _inherited(
    here: Mapping[str, Photo], splits: Mapping[str, Split], parent: Version | None
) -> list[ShardPlan]:
    if parent is None:
        return []
    members: dict[str, list[PhotoRow]] = defaultdict(list)
    for row in parent.photos:
        members[row.shard].append(row)
    plans = []
    for shard in parent.manifest.shards:
        rows = members[shard.sha256]
        left = tuple(
            here[row.sha256] for row in rows if row.sha256 in here and splits[row.sha256] is shard.split
        )
        same = len(left) == len(rows) and all(here[row.sha256].label == row.label for row in rows)
        if left:
            plans.append(ShardPlan(shard.split, left, shard if same else None))
    return plans


def photo_rows(plan: ShardPlan, shard: str) -> list[PhotoRow]:
    """Return the lines of photos.jsonl for one shard."""
    return [
        PhotoRow(
            key=photo.key,
            sha256=photo.sha256,
            label=photo.label,
            split=plan.split,
            shard=shard,
            phash=None if photo.phash is None else f"{photo.phash:016x}",
        )
        for photo in plan.photos
    ]


def make_version(
    name: str,
    seed: int,
    fractions: Fractions,
    shards: Sequence[ShardRow],
    photos: Sequence[PhotoRow],
    rejected: Iterable[Rejected],
    parent: Version | None,
    corrected: int = 0,
) -> Version:
    """Assemble a version from its written shards and their photos (in the order of the shards)."""
    known = parent.known_splits() if parent else {}
    counts = {split.value: Counter(row.label for row in photos if row.split is split) for split in Split}
    classes = tuple(sorted({row.label for row in photos}))
    manifest = Manifest(
        name=name,
        parent=parent.manifest.version if parent else None,
        seed=seed,
        fractions=fractions,
        classes=classes,
        counts={split: {label: found[label] for label in classes} for split, found in counts.items()},
        shards=tuple(shards),
        photos_sha256=hashlib.sha256(photos_jsonl(photos)).hexdigest(),
        rejected=tuple(sorted(rejected, key=lambda item: item.path)),
        lineage=(*parent.manifest.lineage, parent.manifest.version) if parent else (),
        moves=_moves(photos, known, parent) if parent else (),
        changes=class_changes(
            {row.sha256: row.label for row in parent.photos} if parent else {},
            {row.sha256: row.label for row in photos},
        ),
        corrected=corrected,
    )
    present = {row.sha256 for row in photos}
    retired = {sha: split for sha, split in sorted(known.items()) if sha not in present}
    return Version(manifest, tuple(photos), retired)


def _moves(photos: Sequence[PhotoRow], known: Mapping[str, Split], parent: Version) -> tuple[Move, ...]:
    """Moves of this version, and the earlier ones of photos that are still where they were moved to."""
    here = {row.key: row.split for row in photos}
    earlier = [move for move in parent.manifest.moves if here.get(move.key) is move.after]
    until = parent.manifest.version
    fresh = [
        Move(row.key, known[row.sha256], row.split, until)
        for row in photos
        if known.get(row.sha256, row.split) is not row.split
    ]
    return (*earlier, *sorted(fresh, key=lambda move: move.key))


def photos_jsonl(photos: Iterable[PhotoRow]) -> bytes:
    """Return the bytes of photos.jsonl."""
    return "".join(row.to_line() + "\n" for row in photos).encode()


def read_photos_jsonl(data: bytes) -> tuple[PhotoRow, ...]:
    """Inverse of `photos_jsonl`.

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
