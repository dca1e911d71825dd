"""The split of a photo (training, validation or test): a property of the photo that later versions keep."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from model_code.data.duplicates import Pairs, near_duplicates
from model_code.data.records import Fractions, Photo, Rejected, rank
from model_code.data.shards import Split
from model_code.data.source import DatasetError


@dataclass(slots=True)
class _Group:
    """Photos of the same picture, and the split that one of them already has."""

    members: list[int] = field(default_factory=list)
    split: Split | None = None


def assign(
    photos: Sequence[Photo],
    known: Mapping[str, Split],
    seed: int = 0,
    fractions: Fractions | None = None,
    pairs: Pairs | None = None,
) -> tuple[dict[str, Split], list[Rejected]]:
    """Give each photo a split.

    Photos with a known split keep it, photos of the same picture stay together. The others fill the test and then
    the validation part of their class in the order of `rank`; the rest is for training. A class left without a test
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
    order = sorted(range(len(photos)), key=lambda index: rank(photos[index].sha256, seed))
    if pairs is None:
        pairs = near_duplicates([photo.phash for photo in photos])
    groups, rejected = _groups(photos, known, order, pairs)
    left_out = {item.path for item in rejected}
    used = [index for index in order if photos[index].path not in left_out]
    splits = _fill(photos, groups, used, fractions or Fractions())
    _refill(photos, groups, used, splits)
    _check(photos, used, splits)
    return {photos[index].sha256: splits[index] for index in used}, rejected


def without_contradictions(photos: Sequence[Photo], pairs: Pairs) -> tuple[set[int], list[Rejected]]:
    """Leave out the photos of one picture that is in two classes: its class is not known.

    Returns:
        The indices left out, and the reasons.
    """
    others: dict[int, list[int]] = defaultdict(list)
    for one, other in pairs:
        if photos[one].label != photos[other].label:
            others[one].append(other)
            others[other].append(one)
    rejected = []
    for index, found in sorted(others.items()):
        labels = sorted({photos[index].label, *(photos[other].label for other in found)})
        reason = (
            f"the same picture as {photos[found[0]].path}, in {len(labels)} classes ({', '.join(labels)}); "
        )
        rejected.append(Rejected(photos[index].path, reason + "keep it in one"))
    return set(others), rejected


def _groups(
    photos: Sequence[Photo], known: Mapping[str, Split], order: Sequence[int], pairs: Pairs
) -> tuple[dict[int, _Group], list[Rejected]]:
    """Group the photos of the same picture; a new photo that would join two splits is left out."""
    neighbors: dict[int, list[int]] = defaultdict(list)
    for one, other in pairs:
        neighbors[one].append(other)
        neighbors[other].append(one)
    groups: dict[int, _Group] = {}
    rejected = []
    # Photos of the parent first: they are never the ones left out.
    for index in sorted(order, key=lambda i: photos[i].sha256 not in known):
        own = known.get(photos[index].sha256)
        near = {id(groups[other]): groups[other] for other in neighbors[index] if other in groups}
        splits = {group.split for group in near.values() if group.split is not None}
        if own is not None:
            near = {key: group for key, group in near.items() if group.split == own}
        elif len(splits) > 1:
            names = " and ".join(sorted(splits))
            rejected.append(Rejected(photos[index].path, f"near-duplicate of photos in {names}"))
            continue
        # The largest takes in the others, so that a long burst of look-alikes is not copied at each of its photos.
        merged = max(near.values(), key=lambda group: len(group.members), default=_Group([], None))
        merged.split = own or next(iter(splits), None)
        added = [
            index,
            *(member for group in near.values() if group is not merged for member in group.members),
        ]
        merged.members.extend(added)
        groups.update((member, merged) for member in added)
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
    photos: Sequence[Photo], groups: Mapping[int, _Group], used: Sequence[int], fractions: Fractions
) -> dict[int, Split]:
    sizes = Counter(photos[index].label for index in used)
    fills = {label: _ClassFill(size, fractions.targets(size)) for label, size in sizes.items()}
    splits: dict[int, Split] = {}

    def put(group: _Group, split: Split) -> None:
        for member in group.members:
            splits[member] = split
            fills[photos[member].label].have[split] += 1

    # Known splits first: what they hold counts towards the targets.
    for index in used:
        known = groups[index].split
        if known is not None and index not in splits:
            put(groups[index], known)
    fresh = [index for index in used if index not in splits]
    first_members: dict[int, int] = {}
    for index in fresh:
        first_members.setdefault(id(groups[index]), index)
    for index in first_members.values():
        fills[photos[index].label].waiting[len(groups[index].members)] += 1
    for index in first_members.values():
        fill, size = fills[photos[index].label], len(groups[index].members)
        put(groups[index], fill.wanted(size))
        fill.waiting[size] -= 1
    return splits


def _refill(
    photos: Sequence[Photo], groups: Mapping[int, _Group], used: Sequence[int], splits: dict[int, Split]
) -> None:
    """Move one picture of each class that has no test or no training photo left; at best the smallest group."""
    held: dict[str, dict[Split, dict[int, _Group]]] = {}
    for index in used:  # in the order of their rank, so the choice depends on nothing else
        own = held.setdefault(photos[index].label, {split: {} for split in Split})
        own[splits[index]].setdefault(id(groups[index]), groups[index])

    def move(own: dict[Split, dict[int, _Group]], donor: Split, split: Split) -> None:
        key, group = min(own[donor].items(), key=lambda item: len(item[1].members))
        own[split][key] = own[donor].pop(key)
        splits.update(dict.fromkeys(group.members, split))

    for own in (held[label] for label in sorted(held)):
        for split, last in ((Split.TEST, Split.TRAIN), (Split.TRAIN, Split.TEST)):
            if own[split]:
                continue
            if own[Split.VALID]:
                move(own, Split.VALID, split)
            elif len(own[last]) > 1:
                move(own, last, split)
    if held and not any(own[Split.VALID] for own in held.values()):
        richest = max(sorted(held), key=lambda label: len(held[label][Split.TRAIN]))
        if len(held[richest][Split.TRAIN]) > 1:
            move(held[richest], Split.TRAIN, Split.VALID)


def _check(photos: Sequence[Photo], used: Sequence[int], splits: Mapping[int, Split]) -> None:
    held: dict[str, Counter[Split]] = {photo.label: Counter() for photo in photos}
    for index in used:
        held[photos[index].label][splits[index]] += 1
    for label in sorted(held):
        for split in (Split.TRAIN, Split.TEST):
            if not held[label][split]:
                raise DatasetError(
                    f"class {label!r} has no photo for {split.value} among {held[label].total()} "
                    "(photos that look the same stay together): add at least 2 different photos, or set "
                    "group_lookalikes to false"
                )
    if not any(counts[Split.VALID] for counts in held.values()):
        raise DatasetError("no class has a photo for validation: give at least one class 3 different photos")
