"""The next version of a data set: look at a source, split, pack into shards, publish."""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict
from zipfile import ZipFile

import numpy as np

from model_code.data import duplicates, photos, scan, splits
from model_code.data.manifest import Manifest, ShardRow
from model_code.data.records import Fractions, Photo, Rejected
from model_code.data.shards import Sample, Split, write_shard
from model_code.data.source import DatasetError, Source
from model_code.data.versions import thumbnails
from model_code.data.versions.columns import SPLITS, Findings, Photos, Splits
from model_code.data.versions.journal import Journal
from model_code.data.versions.plan import ShardPlan, Version, make_version, plan_shards, rows_of
from model_code.data.versions.reviewed import for_training
from model_code.data.versions.store import Store, check_name
from model_code.process.cores import cores
from model_code.process.parallel import ordered_map

_EXAMPLES = 20
# Of a thumbnail's shorter side.
_SIDE = 192
# Photos read at once while a shard is written: twice as many are in memory.
_READERS = 16

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Corrected:
    """Photos after corrections: those that stay, those left out, and the number of corrections that counted."""

    photos: Photos
    rejected: list[Rejected]
    count: int


Correct = Callable[[Photos], Corrected]


class Example(TypedDict):
    """A file that was left out, and the reason."""

    path: str
    reason: str


class Made(TypedDict):
    """The summary of a version: JSON-ready and small.

    `counts` are photos per split, `rejected` a number, `changes` sentences about renamed and merged classes, `moved`
    photos that ever changed their split, `corrected` labels from the log, `read` files whose bytes were read.
    """

    name: str
    version: str
    parent: str | None
    manifest_uri: str
    classes: list[str]
    counts: dict[str, int]
    rejected: int
    rejected_examples: list[Example]
    changes: list[str]
    moved: int
    corrected: int
    total_bytes: int
    new_shards: int
    uploaded_bytes: int
    read: int
    changed: bool


@dataclass(frozen=True)
class Options:
    """Settings of a version.

    Attributes:
        seed: Shuffles the split of a new data set; an existing one keeps its splits.
        fractions: Of validation and test.
        group_lookalikes: Keep photos that show the same picture in one split.
        force: Read every file again.
        workers: Threads that decode; None: this machine's cores.
    """

    seed: int = 0
    fractions: Fractions = field(default_factory=Fractions)
    group_lookalikes: bool = True
    force: bool = False
    workers: int | None = None


def _uncorrected(found: Photos) -> Corrected:
    return Corrected(found, [], 0)


def make(
    store: Store,
    source: Source,
    options: Options,
    correct: Correct = _uncorrected,
    progress: Progress | None = None,
    journal: Journal | None = None,
) -> Made:
    """Make the version of a data set that holds the photos of a source, and store what is missing of it.

    Files that did not change since the last version are not read. Shards go first and the pointer to the newest
    version last, so an interrupted run leaves no half version, and the next one stores only the rest.

    Args:
        store: The data set.
        source: Its photos.
        options: Settings.
        correct: Applies the log of corrections.
        progress: Called with (done, total, unit) now and then.
        journal: What earlier tries have done, and where this one notes what it does.

    Raises:
        DatasetError: No data set can be made of the source; the message names the fix.
        ConcurrentUpload: Another upload of this data set finished first.
    """
    check_name(store.name)
    say = progress or (lambda done, total, unit: None)
    parent, tag = store.newest()
    known = Findings() if options.force else store.looks(parent)
    before = len(known)
    if journal:
        journal.recall(known)
    recalled = len(known) - before
    looked = scan.look(
        source, known, options.workers, lambda done, total: say(done, total, "photos"),
        journal.looked if journal else None,
    )  # fmt: skip
    if journal:
        journal.flush(known)
    corrected = correct(looked.photos)
    with tempfile.TemporaryDirectory(prefix="ml-pipeline-shards-") as folder:
        decoders = threading.BoundedSemaphore(options.workers or cores())
        making = _Making(store, source, Path(folder), parent, options, say, decoders, journal)
        kept, split_of, left_out = making.split(corrected.photos)
        plans = plan_shards(kept, split_of, options.seed, parent)
        del split_of
        shards, sent, new = making.pack(plans)
    rows = rows_of(plans, [shard.sha256 for shard in shards])
    rejected = looked.rejected + corrected.rejected + left_out
    version = make_version(
        store.name, options.seed, options.fractions, shards, rows, rejected, parent, corrected.count
    )
    changed = parent is None or version.manifest.version != parent.manifest.version
    sent += store.publish(version, tag) if changed else 0
    if changed or looked.read or recalled or before != len(looked.rows):
        still = np.unique(np.asarray(looked.rows, np.int32))
        if before and np.searchsorted(still, before) == before:
            store.keep_looks(version, looked.found, map(int, still[before:]), parent)
        else:
            store.keep_looks(version, looked.found, looked.rows)
    listed = parent.manifest if parent and not changed else version.manifest
    return _summary(store, listed, rejected, (new, sent, looked.read), changed)


@dataclass(frozen=True)
class _Making:
    """The photos of one version on their way from the source to the store."""

    store: Store
    source: Source
    folder: Path
    parent: Version | None
    options: Options
    say: Progress
    # Bounds the photos that are decoded at once, each up to 270 MB.
    decoders: threading.BoundedSemaphore
    journal: Journal | None

    @property
    def known(self) -> Splits:
        """Splits of the parent's photos."""
        return self.parent.known_splits if self.parent else Splits.of({})

    def split(self, found: Photos) -> tuple[Photos, Splits, list[Rejected]]:
        """Split the photos; returns those that stay, their splits by SHA-256, and those left out."""
        known = self.known
        pairs: duplicates.Pairs = np.empty((0, 2), np.int32)
        contradicting: list[Rejected] = []
        if self.options.group_lookalikes:
            pairs = duplicates.same_pictures(
                found.phashes,
                lambda index: self.source.read(found.path(index)),
                known.find(found.digests) < 0,
                self.options.workers,
            )
            out, contradicting = splits.without_contradictions(found, pairs)
            found, pairs = _without(found, pairs, out)
        joined = for_training(found, pairs, known)
        if joined.training:
            reviewed = found.digests[joined.training]
            known = Splits(
                np.concatenate((known.digests, reviewed)),
                np.concatenate((known.codes, np.full(len(reviewed), SPLITS.index(Split.TRAIN), np.int8))),
            )
        found, pairs = _without(found, pairs, joined.rejected)
        split_of, ambiguous = splits.assign(found, known, self.options.seed, self.options.fractions, pairs)
        return found, split_of, [*contradicting, *joined.rejected.values(), *ambiguous]

    def pack(self, plans: list[ShardPlan]) -> tuple[list[ShardRow], int, int]:
        """Write missing shards; returns the rows of all shards, bytes stored, and number of new shards."""
        shards: list[ShardRow] = []
        stored = new = 0
        for done, plan in enumerate(plans, start=1):
            shard = plan.kept
            if shard is None:
                shard, sent = self._write(plan)
                stored += sent
                new += 1
            shards.append(shard)
            self.say(done, len(plans), "shards")
        return shards, stored, new

    def _write(self, plan: ShardPlan) -> tuple[ShardRow, int]:
        if self.journal and (there := self.journal.shard(plan)):
            sha256, size = there
            key = self.store.key(f"shards/{sha256}.tar")
            return ShardRow(sha256, key, plan.split, len(plan.photos), size), 0
        path, pictures = self.folder / "shard.tar", self.folder / "thumbnails.zip"
        with thumbnails.writing(pictures) as album:
            info = write_shard(path, plan.split, self._samples(plan, album))
        key = f"shards/{info.sha256}.tar"
        row = ShardRow(info.sha256, self.store.key(key), plan.split, info.photos, info.bytes)
        sent = 0
        # The thumbnails first: a shard that is there has them, unless an earlier release wrote it.
        files = {thumbnails.key(info.sha256): pictures, key: path}
        if not all(map(self.store.exists, files)):
            for place, file in files.items():
                self.store.put_file(place, file)
            sent = info.bytes
        if self.journal:
            self.journal.wrote(plan, info.sha256)
        for file in files.values():
            file.unlink(missing_ok=True)
        return row, sent

    def _samples(self, plan: ShardPlan, album: ZipFile) -> Iterator[Sample]:
        """Yield the photos of a shard, each once its thumbnail is in `album`."""
        workers = min(self.source.requests, _READERS)
        for photo, sample, small in ordered_map(self._read, plan.photos, workers, 2 * workers):
            if small:
                thumbnails.add(album, photo.sha256, small)
            yield sample

    def _read(self, photo: Photo) -> tuple[Photo, Sample, bytes]:
        try:
            data = self.source.read(photo.path)
        except OSError:
            data = b""
        if hashlib.sha256(data).hexdigest() != photo.sha256:
            raise DatasetError(
                f"{photo.path} in {self.source.describe()} changed during the upload; run it again when it rests"
            )
        with self.decoders:
            kept, suffix = photos.stored(data)
            try:
                small = photos.thumbnail(data, _SIDE)
            except photos.PhotoError:
                small = b""  # pages show the photo without a picture
        return photo, Sample(photo.key, photo.label, kept, suffix), small


def _without(found: Photos, pairs: duplicates.Pairs, out: Collection[int]) -> tuple[Photos, duplicates.Pairs]:
    """Leave photos out, by position; also from the pairs, whose numbers change."""
    keep = np.ones(len(found), bool)
    keep[list(out)] = False
    return found.take(keep), (np.cumsum(keep, dtype=np.int32) - 1)[pairs[keep[pairs].all(1)]]


def _summary(
    store: Store, listed: Manifest, rejected: list[Rejected], stored: tuple[int, int, int], changed: bool
) -> Made:
    examples = sorted(rejected, key=lambda item: item.path)[:_EXAMPLES]
    new_shards, uploaded_bytes, read = stored
    return {
        "name": listed.name,
        "version": listed.version,
        "parent": listed.parent,
        "manifest_uri": store.uri(f"versions/{listed.version}/manifest.json"),
        "classes": list(listed.classes),
        "counts": {split: sum(found.values()) for split, found in listed.counts.items()},
        "rejected": len(rejected),
        "rejected_examples": [{"path": item.path, "reason": item.reason} for item in examples],
        "changes": [str(change) for change in listed.changes[:_EXAMPLES]],
        "moved": len(listed.moves),
        "corrected": listed.corrected,
        "total_bytes": listed.total_bytes,
        "new_shards": new_shards,
        "uploaded_bytes": uploaded_bytes,
        "read": read,
        "changed": changed,
    }
