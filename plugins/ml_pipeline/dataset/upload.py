"""Photos to a data set version in S3: only what the newest version lacks is read and uploaded."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_pipeline.aws import s3 as objects
from ml_pipeline.dataset import corrections, sources
from ml_pipeline.dataset.place import Place

if TYPE_CHECKING:
    from model_code.data.manifest import Manifest, PhotoRow, ShardPlan, ShardRow, Version
    from model_code.data.records import Fractions, Photo, Rejected
    from model_code.data.shards import Sample, Split
    from model_code.data.source import Source

_EXAMPLES = 20
# Photos read at once while a shard is written: twice as many are in memory.
_READERS = 16
Progress = Callable[[int, int, str], None]


def upload(
    s3: Any,
    bucket: str,
    name: str,
    data: str,
    *,
    seed: int = 0,
    fractions: Fractions | None = None,
    group_lookalikes: bool = True,
    force: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Make the version of data set `name` that holds the photos in `data`, and upload what is missing of it.

    Files that did not change since the last version are not read. Shards go first and the pointer to the newest
    version last, so an interrupted run leaves no half version, and the next one uploads only the rest.

    Args:
        s3: A boto3 client.
        bucket: The bucket of the data set.
        name: Name of the data set.
        data: A local folder or an s3:// prefix with one folder per class, or a table of photos and labels.
        seed: Shuffles the split of a new data set; an existing one keeps its splits.
        fractions: Of validation and test.
        group_lookalikes: Keep photos that show the same picture in one split.
        force: Read every file again.
        workers: Threads that decode; default: this machine's cores.
        progress: Called with (done, total, unit) now and then.

    Returns:
        JSON-ready and small; see `_result`.

    Raises:
        DatasetError: No data set can be made of `data`; the message names the fix.
        ConcurrentUpload: Another upload of this data set finished first.
    """
    from model_code.data import scan
    from model_code.data.source import DatasetError, Folder

    check_name(name)
    if not data.strip():
        # As a path it would be the working directory.
        raise DatasetError(
            "`data` is empty: give a folder or an s3:// prefix with one folder of photos per class; for scheduled "
            "runs, in ML_PIPELINE_DEFAULTS"
        )
    say = progress or (lambda done, total, unit: None)
    place = Place(s3, bucket, name)
    parent, tag = place.newest()
    with tempfile.TemporaryDirectory(prefix="ml-pipeline-upload-") as folder:
        source = sources.source_of(s3, data)
        if not isinstance(source, Folder):
            source = sources.Spooled(source, Path(folder))
        known = {} if force else place.looks(parent)
        looked = scan.look(source, known, workers, lambda done, total: say(done, total, "photos"))
        made = _Making(place, source, Path(folder), parent, seed, group_lookalikes, workers, say)
        version, rejected, sent, new = made.version(looked.photos, looked.rejected, fractions)
    changed = parent is None or version.manifest.version != parent.manifest.version
    sent += place.publish(version, tag) if changed else 0
    if changed or looked.read or len(known) != len(looked.looks):
        place.keep_looks(version, looked.looks)
    current = parent.manifest if parent and not changed else version.manifest
    return _result(place, current, rejected) | {
        "new_shards": new,
        "uploaded_bytes": sent,
        "read": looked.read,
        "changed": changed,
    }


@dataclass(frozen=True)
class _Making:
    """The making of one version from the photos of a source."""

    place: Place
    source: Source
    folder: Path
    parent: Version | None
    seed: int
    group_lookalikes: bool
    workers: int | None
    say: Progress

    def version(
        self, photos: list[Photo], rejected: list[Rejected], fractions: Fractions | None
    ) -> tuple[Version, list[Rejected], int, int]:
        """Split, pack and upload; returns the version, files left out, bytes uploaded and new shards."""
        from model_code.data import manifest, records

        parts = fractions or records.Fractions()
        corrected = corrections.load(self.place.s3, self.place.bucket, self.place.name).apply(photos)
        photos, split_of, left_out = self._split(corrected.photos, parts)
        plans = manifest.plan_shards(photos, split_of, self.seed, self.parent)
        shards, rows, sent, new = self._upload_shards(plans)
        rejected = rejected + corrected.rejected + left_out
        made = manifest.make_version(
            self.place.name, self.seed, parts, shards, rows, rejected, self.parent, corrected.count
        )
        return made, rejected, sent, new

    def _split(
        self, photos: list[Photo], parts: Fractions
    ) -> tuple[list[Photo], dict[str, Split], list[Rejected]]:
        from model_code.data import duplicates, splits

        known = self.parent.known_splits() if self.parent else {}
        pairs = []
        contradicting: list[Rejected] = []
        if self.group_lookalikes:
            new = [photo.sha256 not in known for photo in photos]
            pairs = duplicates.same_pictures(
                [photo.phash for photo in photos],
                lambda index: self.source.read(photos[index].path),
                lambda one, other: new[one] or new[other],
                self.workers,
            )
            out, contradicting = splits.without_contradictions(photos, pairs)
            place = {index: at for at, index in enumerate(i for i in range(len(photos)) if i not in out)}
            photos = [photo for index, photo in enumerate(photos) if index not in out]
            pairs = [(place[one], place[other]) for one, other in pairs if one in place and other in place]
        split_of, ambiguous = splits.assign(photos, known, self.seed, parts, pairs)
        return photos, split_of, contradicting + ambiguous

    def _upload_shards(self, plans: list[ShardPlan]) -> tuple[list[ShardRow], list[PhotoRow], int, int]:
        """Rows of all shards and photos, the bytes uploaded, and the number of new shards."""
        from model_code.data.manifest import photo_rows

        shards: list[ShardRow] = []
        rows: list[PhotoRow] = []
        uploaded = new = 0
        for done, plan in enumerate(plans, start=1):
            shard = plan.kept
            if shard is None:
                shard, sent = self._upload_shard(plan)
                uploaded += sent
                new += 1
            shards.append(shard)
            rows += photo_rows(plan, shard.sha256)
            self.say(done, len(plans), "shards")
        return shards, rows, uploaded, new

    def _upload_shard(self, plan: ShardPlan) -> tuple[ShardRow, int]:
        from model_code.data.manifest import ShardRow
        from model_code.data.shards import write_shard
        from model_code.process.parallel import ordered_map

        path = self.folder / "shard.tar"
        workers = min(self.source.requests, _READERS)
        info = write_shard(path, plan.split, ordered_map(self._sample, plan.photos, workers, 2 * workers))
        key = f"shards/{info.sha256}.tar"
        row = ShardRow(info.sha256, self.place.key(key), plan.split, info.photos, info.bytes)
        sent = 0
        if not objects.exists(self.place.s3, self.place.uri(key)):
            self.place.s3.upload_file(str(path), self.place.bucket, self.place.key(key))
            sent = info.bytes
        path.unlink()
        return row, sent

    def _sample(self, photo: Photo) -> Sample:
        from model_code.data import photos
        from model_code.data.shards import Sample
        from model_code.data.source import DatasetError

        try:
            data = self.source.read(photo.path)
        except OSError:
            data = b""
        if hashlib.sha256(data).hexdigest() != photo.sha256:
            raise DatasetError(
                f"{photo.path} in {self.source.describe()} changed during the upload; run it again when it rests"
            )
        kept, suffix = photos.stored(data)
        return Sample(photo.key, photo.label, kept, suffix)


def check_name(name: str) -> None:
    """Refuse a data set name that S3 keys, SageMaker names and URLs do not all accept.

    Raises:
        ValueError: With a name that works.
    """
    import re

    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", name):
        raise ValueError(
            f"{name!r} is not a data set name: use 1 to 40 lower-case letters, digits and inner hyphens, "
            "like 'dog-breeds'"
        )


def _result(place: Place, listed: Manifest, rejected: list[Rejected]) -> dict[str, Any]:
    """The summary of a version.

    Returns:
        name, version, parent, manifest_uri, classes, counts (photos per split), rejected (a number),
        rejected_examples, changes (sentences about renamed and merged classes), moved (photos that ever changed their
        split), corrected (labels from the log), total_bytes.
    """
    examples = sorted(rejected, key=lambda item: item.path)[:_EXAMPLES]
    return {
        "name": listed.name,
        "version": listed.version,
        "parent": listed.parent,
        "manifest_uri": place.uri(f"versions/{listed.version}/manifest.json"),
        "classes": list(listed.classes),
        "counts": {split: sum(found.values()) for split, found in listed.counts.items()},
        "rejected": len(rejected),
        "rejected_examples": [{"path": item.path, "reason": item.reason} for item in examples],
        "changes": [str(change) for change in listed.changes[:_EXAMPLES]],
        "moved": len(listed.moves),
        "corrected": listed.corrected,
        "total_bytes": listed.total_bytes,
    }
