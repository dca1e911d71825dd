"""The split of a photo (training, validation or test): a property of the photo that later versions keep."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from model_code.data.duplicates import Neighbors, Pairs, near_duplicates
from model_code.data.records import Fractions, Photo, Rejected
from model_code.data.shards import Split
from model_code.data.source import DatasetError
from model_code.data.versions.columns import SPLITS, Photos, Splits
from model_code.data.versions.ranks import order_of


@dataclass(slots=True)
class _Group:
    """Photos of the same picture, and the split that one of them already has."""

    members: list[int] = field(default_factory=list)
    split: Split | None = None


_Groups = list[_Group | None]
"""The group of each photo; None: it resembles no other."""


def assign(
    photos: Sequence[Photo],
    known: Mapping[str, Split],
    seed: int = 0,
    fractions: Fractions | None = None,
    pairs: Pairs | None = None,
) -> tuple[Splits, list[Rejected]]:
    """Give each photo a split.

    Photos with a known split keep it, photos of the same picture stay together. The others fill the test and then
    the validation part of their class in the order of `order_of`; the rest is for training. A class left without a test
    (or training) photo, because its last one was removed or relabeled, gets one from new photos, else from
    validation, else from training.

    Args:
        photos: All photos of the version.
        known: Splits by SHA-256, of the parent version.
        seed: Shuffles the photos that have no split yet.
        fractions: Parts of each class.
        pairs: Indices of photos that show the same picture; by default those with similar perceptual hashes.

    Returns:
        Splits by SHA-256, and the photos left out because they show the same picture as photos of two splits.

    Raises:
        DatasetError: A class would have nothing to train on or to be tested on.
    """
    table = Photos.of(photos)
    order = order_of(table.digests, seed)
    before = Splits.of(known).find(table.digests)
    if pairs is None:
        pairs = near_duplicates(table.phashes)
    groups, left_out = _groups(table, before, order, pairs)
    if left_out:
        order = order[~np.isin(order, list(left_out))]
    codes = before.copy()
    codes[list(left_out)] = -1
    _fill(table, groups, order, codes, fractions or Fractions())
    _refill(table, groups, order, codes)
    _check(table, codes)
    used = codes >= 0
    placed = table if used.all() else table.take(used)
    return Splits(placed.digests, codes[used]), list(left_out.values())


def without_contradictions(photos: Sequence[Photo], pairs: Pairs) -> tuple[set[int], list[Rejected]]:
    """Leave out the photos of one picture that is in two classes: its class is not known.

    Returns:
        The indices left out, and the reasons.
    """
    table = Photos.of(photos)
    others: dict[int, list[int]] = defaultdict(list)
    for one, other in pairs[table.labels[pairs[:, 0]] != table.labels[pairs[:, 1]]].tolist():
        others[one].append(other)
        others[other].append(one)
    rejected = []
    for index, found in sorted(others.items()):
        labels = sorted({table.label(index), *map(table.label, found)})
        reason = (
            f"the same picture as {table.path(found[0])}, in {len(labels)} classes ({', '.join(labels)}); "
        )
        rejected.append(Rejected(table.path(index), reason + "keep it in one"))
    return set(others), rejected


def _groups(
    photos: Photos, before: NDArray[np.int8], order: NDArray[np.int64], pairs: Pairs
) -> tuple[_Groups, dict[int, Rejected]]:
    """Group the photos of the same picture; a new photo that would join two splits is left out."""
    neighbors = Neighbors(pairs, len(photos))
    groups: _Groups = [None] * len(photos)
    rejected: dict[int, Rejected] = {}
    involved = order[neighbors.any[order]]
    # Photos of the parent first: they are never the ones left out.
    for index in involved[np.argsort(before[involved] < 0, kind="stable")].tolist():
        own = SPLITS[before[index]] if before[index] >= 0 else None
        near = {id(group): group for other in neighbors.of(index) if (group := groups[other])}
        splits = {group.split for group in near.values() if group.split is not None}
        if own is not None:
            near = {key: group for key, group in near.items() if group.split == own}
        elif len(splits) > 1:
            names = " and ".join(sorted(splits))
            rejected[index] = Rejected(photos.path(index), f"near-duplicate of photos in {names}")
            continue
        # The largest takes in the others, so that a long burst of look-alikes is not copied at each of its photos.
        merged = max(near.values(), key=lambda group: len(group.members), default=_Group([], None))
        merged.split = own or next(iter(splits), None)
        added = [
            index,
            *(member for group in near.values() if group is not merged for member in group.members),
        ]
        merged.members.extend(added)
        for member in added:
            groups[member] = merged
    return groups, rejected


@dataclass
class _ClassFill:
    """The fill level of a class: photos that its splits have and want, and its waiting groups."""

    photos: int
    targets: dict[Split, int]
    have: Counter[Split] = field(default_factory=Counter)
    waiting: Counter[int] = field(default_factory=Counter)
    """Sizes of the groups that have no split yet."""

    def wanted(self, size: int) -> Split:
        """Return the split for the next group, of `size` photos."""
        spare = self.waiting.total() > 1 or self.have[Split.TRAIN] > 0
        for split in (Split.TEST, Split.VALID):
            target = self.targets[split]
            fits = self.have[split] + size <= target
            # Better too many than none, where all photos come in bursts of one picture.
            bursts = not any(count and waiting <= target for waiting, count in self.waiting.items())
            first = target > 0 and not self.have[split] and 2 * size <= self.photos and bursts
            if spare and (fits or first):
                return split
        return Split.TRAIN


def _fill(
    photos: Photos,
    groups: _Groups,
    used: NDArray[np.int64],
    codes: NDArray[np.int8],
    fractions: Fractions,
) -> None:
    """Give a split to each photo in `used` whose code says none."""
    labels = photos.labels
    # Known splits first: what they hold counts towards the targets.
    for index, group in enumerate(groups):
        if group and group.split is not None:
            codes[index] = SPLITS.index(group.split)
    held = _held(photos, codes)
    sizes = np.bincount(labels[used], minlength=len(photos.names)).tolist()
    fills = [
        _ClassFill(size, fractions.targets(size), Counter(dict(zip(SPLITS, have, strict=True))))
        for size, have in zip(sizes, held.tolist(), strict=True)
    ]
    fresh = used[codes[used] < 0]
    first = np.ones(len(fresh), bool)
    seen: set[int] = set()
    for at, index in enumerate(fresh.tolist()):
        if group := groups[index]:
            first[at] = id(group) not in seen
            seen.add(id(group))
    firsts = fresh[first]
    of = labels[firsts].tolist()
    for index, label in zip(firsts.tolist(), of, strict=True):
        fills[label].waiting[len(_same_picture(groups, index))] += 1
    for index, label in zip(firsts.tolist(), of, strict=True):
        fill = fills[label]
        members = _same_picture(groups, index)
        split = fill.wanted(len(members))
        for member in members:
            codes[member] = SPLITS.index(split)
            fills[labels[member]].have[split] += 1
        fill.waiting[len(members)] -= 1


def _same_picture(groups: _Groups, index: int) -> list[int]:
    """Return the photos of the same picture as one, itself included."""
    group = groups[index]
    return group.members if group else [index]


def _held(photos: Photos, codes: NDArray[np.int8]) -> NDArray[np.int64]:
    """Count photos [classes, splits]."""
    kinds = len(photos.names)
    placed = codes >= 0
    numbers = photos.labels[placed] * len(SPLITS) + codes[placed]
    return np.bincount(numbers, minlength=kinds * len(SPLITS)).reshape(kinds, len(SPLITS))


def _pictures(
    photos: Photos, groups: _Groups, used: NDArray[np.int64], codes: NDArray[np.int8]
) -> dict[str, dict[Split, dict[int, _Group]]]:
    """Return the pictures that a class has in each split, in the order of `used`: their choice depends on no other."""
    held: dict[str, dict[Split, dict[int, _Group]]] = {}
    for index in used.tolist():
        own = held.setdefault(photos.label(index), {split: {} for split in Split})
        group = groups[index] or _Group([index])
        own[SPLITS[codes[index]]].setdefault(min(group.members), group)
    return held


def _refill(photos: Photos, groups: _Groups, used: NDArray[np.int64], codes: NDArray[np.int8]) -> None:
    """Move one picture of each class that has no test or no training photo left; at best the smallest group."""
    counts = _held(photos, codes)
    there = counts.sum(1) > 0
    poor = there & ((counts[:, SPLITS.index(Split.TEST)] == 0) | (counts[:, SPLITS.index(Split.TRAIN)] == 0))

    def move(own: dict[Split, dict[int, _Group]], donor: Split, split: Split) -> None:
        key, group = min(own[donor].items(), key=lambda item: len(item[1].members))
        own[split][key] = own[donor].pop(key)
        codes[group.members] = SPLITS.index(split)

    for _, own in sorted(_pictures(photos, groups, used[poor[photos.labels[used]]], codes).items()):
        for split, last in ((Split.TEST, Split.TRAIN), (Split.TRAIN, Split.TEST)):
            if own[split]:
                continue
            if own[Split.VALID]:
                move(own, Split.VALID, split)
            elif len(own[last]) > 1:
                move(own, last, split)
    if there.any() and not _held(photos, codes)[:, SPLITS.index(Split.VALID)].any():
        held = _pictures(photos, groups, used, codes)
        richest = max(sorted(held), key=lambda label: len(held[label][Split.TRAIN]))
        if len(held[richest][Split.TRAIN]) > 1:
            move(held[richest], Split.TRAIN, Split.VALID)


def _check(photos: Photos, codes: NDArray[np.int8]) -> None:
    held = _held(photos, codes)
    here = np.bincount(photos.labels, minlength=len(photos.names))
    for label, number in sorted((label, number) for number, label in enumerate(photos.names) if here[number]):
        for split in (Split.TRAIN, Split.TEST):
            if not held[number, SPLITS.index(split)]:
                raise DatasetError(
                    f"class {label!r} has no photo for {split.value} among {held[number].sum()} "
                    "(photos that look the same stay together): add at least 2 different photos, or set "
                    "group_lookalikes to false"
                )
    if not held[:, SPLITS.index(Split.VALID)].any():
        raise DatasetError("no class has a photo for validation: give at least one class 3 different photos")
