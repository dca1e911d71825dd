"""Changes between two versions of a data set: renamed and merged classes, photos that changed split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from model_code.data.shards import Split


class ChangeKind(StrEnum):
    """The ways in which photos of one class come to be in another."""

    RENAMED = "renamed"
    MERGED = "merged"
    DIVIDED = "divided"
    RELABELLED = "relabelled"


@dataclass(frozen=True)
class ClassChange:
    """Photos of the parent version that now have another class; `photos` is their number."""

    kind: ChangeKind
    before: str
    after: str
    photos: int

    def __str__(self) -> str:
        if self.kind is ChangeKind.RELABELLED:
            return f"{self.photos} photos of {self.before!r} are {self.after!r} now"
        preposition = {"renamed": "to", "merged": "into", "divided": "into"}[self.kind]
        return f"class {self.before!r} was {self.kind} {preposition} {self.after!r} ({self.photos} photos)"


@dataclass(frozen=True)
class Move:
    """A photo that changed its split, because its class had no photo left for `after`.

    Attributes:
        key: The photo's key.
        before: Its split up to version `until`.
        after: Its split since.
        until: The last version with the old split.
    """

    key: str
    before: Split
    after: Split
    until: str


def class_changes(
    flows: Mapping[tuple[str, str], int], old_classes: Collection[str], new_classes: Collection[str]
) -> tuple[ClassChange, ...]:
    """Recognize renamed, merged and divided classes by their photos.

    Args:
        flows: Number of photos of both versions by their class in the parent version and now.
        old_classes: Of the parent version.
        new_classes: Of this version.
    """
    targets: dict[str, set[str]] = defaultdict(set)
    origins: dict[str, set[str]] = defaultdict(set)
    for old, new in flows:
        targets[old].add(new)
        origins[new].add(old)

    def kind(old: str, new: str) -> ChangeKind:
        if old in new_classes:
            return ChangeKind.RELABELLED
        if len(targets[old]) > 1:
            return ChangeKind.DIVIDED
        merged = new in old_classes or len(origins[new]) > 1
        return ChangeKind.MERGED if merged else ChangeKind.RENAMED

    return tuple(
        ClassChange(kind(old, new), old, new, count)
        for (old, new), count in sorted(flows.items())
        if old != new
    )
