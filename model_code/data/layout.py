"""The layout of a source: whether its folders are classes, and what to say where they are not."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from model_code.data.limits import has_photo_ending
from model_code.data.records import Rejected
from model_code.data.source import DatasetError, Source

_SPLIT_WORDS = {
    "train", "training", "trainset", "trn", "valid", "val", "validate", "validation", "dev", "holdout", "eval",
    "evaluation", "test", "testing", "testset", "tst",
}  # fmt: skip
# Words that say nothing about what a folder holds: training_set, images-test, seg_train, data_val, train_images.
_FILLERS = {
    "",
    "set",
    "data",
    "dataset",
    "image",
    "images",
    "img",
    "imgs",
    "photo",
    "photos",
    "seg",
    "split",
    "folder",
}
_SHOWN = 5


@dataclass
class Layout:
    """The folders of a source, collected while it is listed."""

    subfolders: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, path: str) -> None:
        """Note the class folder and the first sub-folder of a file."""
        parts = [part for part in path.split("/") if part]
        if len(parts) > 1:
            self.subfolders[parts[0]].update(parts[1:2] if len(parts) > 2 else ())

    def splits(self) -> list[str]:
        """Folders that hold a split, not a class.

        These are two or more folders with names of splits: either the only ones with photos, or, next to others,
        ones that hold the same sub-folders.
        """
        named = sorted(name for name in self.subfolders if is_split_name(name))
        if len(named) == len(self.subfolders) and named:
            return named
        shared = [name for name in named if len(self.subfolders[name]) > 1]
        same = {frozenset(self.subfolders[name]) for name in shared}
        return named if len(shared) > 1 and len(same) == 1 else []

    def only_folder_with_classes(self) -> str | None:
        """Return the one folder of the source, where its sub-folders look like the classes."""
        if len(self.subfolders) == 1:
            (name, inner) = next(iter(self.subfolders.items()))
            return name if len(inner) > 1 else None
        return None


def is_split_name(name: str) -> bool:
    """Tell whether a folder's name is that of a split: train, Test, training_set, seg-train, train2017, 01_val."""
    words = set(re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()))
    return bool(words & _SPLIT_WORDS) and words <= _SPLIT_WORDS | _FILLERS


def check_classes(
    source: Source,
    counts: Mapping[str, int],
    layout: Layout,
    folders: Collection[str] = (),
    rejected: Iterable[Rejected] = (),
) -> None:
    """Refuse a source that no classifier can be made of.

    Args:
        source: For messages.
        counts: Readable photos per class.
        layout: Its folders.
        folders: Class folders that exist; those without a photo are named.
        rejected: Files left out so far; their commonest reason is named where nothing is left.

    Raises:
        DatasetError: With one line that names the fix.
    """
    where = source.describe()
    total = sum(counts.values())
    if total == 0 and any(has_photo_ending(name) for name in source.stray()):
        raise DatasetError(
            f"{where} is flat: sort its photos into one folder per class ({where}/<class>/<photo>.jpg)"
        )
    if total == 0:
        raise DatasetError(
            f"{where} holds no photo; it needs one folder per class with at least 2 photos each"
            + commonest(rejected)
        )
    if splits := layout.splits():
        raise DatasetError(
            f"{where} is split already ({', '.join(splits)}); point DATA at a folder with one "
            "folder per class: the pipeline splits it itself, the same way each time"
        )
    poor = sorted({*folders, *counts} - {label for label, photos_in in counts.items() if photos_in >= 2})
    if poor:
        names = ", ".join(f"{name!r} ({counts.get(name, 0)})" for name in poor[:_SHOWN])
        more = f" and {len(poor) - _SHOWN} more" if len(poor) > _SHOWN else ""
        raise DatasetError(
            f"too few readable photos in class {names}{more}: give each class at least 2 (better 20), "
            "or remove its folder" + commonest(rejected)
        )
    if len(counts) < 2:
        only = next(iter(counts))
        inner = layout.only_folder_with_classes()
        hint = (
            f"if its sub-folders are the classes, point DATA at {where.rstrip('/')}/{inner}" if inner else ""
        )
        raise DatasetError(
            f"{where} has only the class {only!r}; {hint or 'add a folder with photos of another class'}"
        )


def commonest(rejected: Iterable[Rejected]) -> str:
    """Return the commonest reason for leaving files out, as the end of a sentence; empty where there is none."""
    counted = Counter(item.reason for item in rejected)
    if not counted:
        return ""
    reason, count = counted.most_common(1)[0]
    return f" ({count} files were left out: {reason})"
