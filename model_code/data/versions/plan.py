"""The shards and the manifest of the next version of a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from model_code.data.manifest import Manifest, PhotoRow, ShardRow
from model_code.data.records import Fractions, Photo, Rejected
from model_code.data.shards import KEY_DIGITS, Split, pack, tar_bytes
from model_code.data.versions.changes import Move, class_changes
from model_code.data.versions.columns import SPLITS, Digests, Photos, Splits, places_of
from model_code.data.versions.ranks import order_of
from model_code.data.versions.rows import Rows


@dataclass(frozen=True)
class Version:
    """A manifest with its photos, and the splits of photos that only earlier versions had."""

    manifest: Manifest
    photos: Rows
    retired: Mapping[str, Split]

    @cached_property
    def known_splits(self) -> Splits:
        """Splits by SHA-256 that the next version has to keep, also for photos that come back."""
        retired = Splits.of(self.retired)
        return Splits(
            np.concatenate((self.photos.digests, retired.digests)),
            np.concatenate((self.photos.splits, retired.codes)),
        )


@dataclass(frozen=True)
class ShardPlan:
    """A shard that a version needs: its photos in order, and its row if the parent version has it."""

    split: Split
    photos: Photos
    kept: ShardRow | None = None


def plan_shards(
    photos: Sequence[Photo], splits: Mapping[str, Split], seed: int, parent: Version | None
) -> list[ShardPlan]:
    """Assign photos to shards: the parent's shards where nothing in them changed, new ones for the rest.

    A shard that lost photos (or whose photos changed class) is written again without touching others; photos
    that the parent lacks go to new shards, in the order of their rank.
    """
    here = Photos.of(photos)
    digests = here.digests
    codes = Splits.of(splits).find(digests)
    placed = codes < 0
    plans = []
    for plan, at in _inherited(here, digests, codes, parent):
        plans.append(plan)
        placed[at] = True
    order = order_of(digests, seed)
    del digests
    for code, split in enumerate(SPLITS):
        fresh = order[((codes == code) & ~placed)[order]]
        labels = here.labels[fresh].tolist()
        sizes = [
            tar_bytes(size, here.names[label])
            for size, label in zip(here.sizes[fresh].tolist(), labels, strict=True)
        ]
        plans += [ShardPlan(split, here.take(fresh[part.start : part.stop])) for part in pack(sizes)]
    return plans


def _inherited(
    here: Photos, digests: Digests, codes: NDArray[np.int8], parent: Version | None
) -> Iterator[tuple[ShardPlan, NDArray[np.int64]]]:
    """Yield the plans of the parent's shards, each with where its photos are now.

    `digests` are those of `here`, which makes a copy of 32 MB for a million photos each time.
    """
    if parent is None:
        return
    rows = parent.photos
    at = places_of(rows.digests, digests)
    at[(at >= 0) & (codes[at] < 0)] = -1
    now = {name: code for code, name in enumerate(here.names)}
    before = np.array([now.get(name, -1) for name in rows.classes], np.int32)[rows.labels]
    by_shard = np.argsort(rows.shards, kind="stable")
    numbers = {name: number for number, name in enumerate(rows.shard_names)}
    ends = np.searchsorted(rows.shards[by_shard], np.arange(len(numbers) + 1))
    for shard in parent.manifest.shards:
        number = numbers[shard.sha256]
        members = by_shard[ends[number] : ends[number + 1]]
        places = at[members]
        stays = (places >= 0) & (codes[places] == SPLITS.index(shard.split))
        left = places[stays]
        same = bool(stays.all() and (here.labels[left] == before[members]).all())
        if len(left):
            yield ShardPlan(shard.split, here.take(left), shard if same else None), left


def rows_of(plans: Iterable[ShardPlan], shards: Sequence[str]) -> Rows:
    """Return the lines of photos.jsonl for some shards, given by SHA-256."""
    names = sorted(set(shards))
    numbers = {name: number for number, name in enumerate(names)}
    listed = list(plans)
    some = listed[0].photos if listed else Photos.of(())
    counts = [len(plan.photos) for plan in listed]
    return Rows(
        digests=np.concatenate([some.digests[:0], *(plan.photos.digests for plan in listed)]),
        labels=np.concatenate([some.labels[:0], *(plan.photos.labels for plan in listed)]),
        classes=some.names,
        splits=np.repeat(np.array([SPLITS.index(plan.split) for plan in listed], np.int8), counts),
        shards=np.repeat(np.array([numbers[name] for name in shards], np.int32), counts),
        shard_names=names,
        phashes=np.concatenate([some.phashes[:0], *(plan.photos.phashes for plan in listed)]),
    )


def make_version(
    name: str,
    seed: int,
    fractions: Fractions,
    shards: Sequence[ShardRow],
    photos: Iterable[PhotoRow],
    rejected: Iterable[Rejected],
    parent: Version | None,
    corrected: int = 0,
) -> Version:
    """Assemble a version from its written shards and their photos (in the order of the shards)."""
    rows = Rows.of(photos)
    classes = tuple(sorted(rows.classes[code] for code in np.unique(rows.labels)))
    counts = {
        split.value: Counter({
            rows.classes[label]: count
            for label, count in enumerate(np.bincount(rows.labels[rows.splits == code]).tolist())
        })
        for code, split in enumerate(SPLITS)
    }  # fmt: skip
    moves: tuple[Move, ...] = ()
    flows: Counter[tuple[str, str]] = Counter()
    known = Splits.of({})
    if parent:
        known = parent.known_splits
        moves = _moves(rows, known, parent)
        flows = _flows(parent.photos, rows)
    manifest = Manifest(
        name=name,
        parent=parent.manifest.version if parent else None,
        seed=seed,
        fractions=fractions,
        classes=classes,
        counts={split: {label: found[label] for label in classes} for split, found in counts.items()},
        shards=tuple(shards),
        photos_sha256=rows.sha256(),
        rejected=tuple(sorted(rejected, key=lambda item: item.path)),
        lineage=(*parent.manifest.lineage, parent.manifest.version) if parent else (),
        moves=moves,
        changes=class_changes(flows, set(parent.manifest.classes) if parent else set(), set(classes)),
        corrected=corrected,
    )
    gone = places_of(known.digests, rows.digests) < 0
    return Version(manifest, rows, Splits(known.digests[gone], known.codes[gone]))


def _moves(rows: Rows, known: Splits, parent: Version) -> tuple[Move, ...]:
    """Moves of this version, and the earlier ones of photos that are still where they were moved to."""
    earlier: list[Move] = []
    if parent.manifest.moves:
        keys = np.array([bytes.fromhex(move.key) for move in parent.manifest.moves], f"S{KEY_DIGITS // 2}")
        moved = np.flatnonzero(np.isin(rows.digests.astype(keys.dtype), keys))
        here = {row.key: row.split for row in (rows[at] for at in moved.tolist())}
        earlier = [move for move in parent.manifest.moves if here.get(move.key) is move.after]
    until = parent.manifest.version
    before = known.find(rows.digests)
    fresh = [
        Move(rows[at].key, SPLITS[before[at]], rows[at].split, until)
        for at in np.flatnonzero((before >= 0) & (before != rows.splits)).tolist()
    ]
    return (*earlier, *sorted(fresh, key=lambda move: move.key))


def _flows(before: Rows, after: Rows) -> Counter[tuple[str, str]]:
    """Count the photos of both versions by their class then and now."""
    at = places_of(after.digests, before.digests)
    both = at >= 0
    pairs = np.stack((before.labels[at[both]], after.labels[both]))
    kinds, counts = np.unique(pairs, axis=1, return_counts=True)
    return Counter(
        {
            (before.classes[old], after.classes[new]): count
            for (old, new), count in zip(kinds.T.tolist(), counts.tolist(), strict=True)
        }
    )
