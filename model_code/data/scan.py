"""A folder with a folder per class: what is in it, what is wrong with it, and what each photo is."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from model_code.data import photos
from model_code.data.limits import MAX_FILE_BYTES
from model_code.data.records import Photo, Rejected
from model_code.data.source import Candidate, DatasetError, Folder, Foldered, Source, _unreadable
from model_code.process.parallel import ordered_map

_SPLIT_NAMES = {"train", "training", "valid", "val", "validation", "test", "testing"}
_SHOWN = 5

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Summary:
    """What `preflight` found: usable photos per class, their bytes, and the files that will be left out."""

    counts: dict[str, int]
    bytes: int
    rejected: tuple[Rejected, ...]

    @property
    def photos(self) -> int:
        """Usable photos in all classes."""
        return sum(self.counts.values())


def preflight(folder: Path | str) -> Summary:
    """Look at a folder before anything long starts; reads the first bytes of each file only.

    :raises DatasetError: when no classifier can be made of it, with the fix.
    """
    source = Folder(Path(folder))
    usable: dict[str, int] = defaultdict(int)
    rejected: list[Rejected] = []
    size = 0
    for candidate in source.candidates():
        usable[candidate.label] += 0
        if reason := source.fault(candidate.path):
            rejected.append(Rejected(candidate.path, reason))
        else:
            usable[candidate.label] += 1
            size += candidate.bytes
    check_classes(source, usable, source.folders())
    return Summary(dict(usable), size, tuple(rejected))


def check_classes(source: Source, counts: dict[str, int], folders: Collection[str] = ()) -> None:
    """Refuse what no classifier can be made of.

    :param counts: readable photos per class.
    :param folders: class folders that exist; those without a photo are named.
    :raises DatasetError: with one line that names the fix.
    """
    where = source.describe()
    total = sum(counts.values())
    if total == 0 and any(_photo_suffix(name) for name in source.stray()):
        raise DatasetError(
            f"{where} is flat: sort its photos into one folder per class ({where}/<class>/<photo>.jpg)"
        )
    if total == 0:
        raise DatasetError(
            f"{where} holds no photo; it needs one folder per class with at least 2 photos each"
        )
    if {name.lower() for name in folders or counts} <= _SPLIT_NAMES:
        raise DatasetError(
            f"{where} is split already ({', '.join(sorted(counts))}); point DATA at a folder with one "
            "folder per class: the pipeline splits it itself, the same way each time"
        )
    poor = sorted({*folders, *counts} - {label for label, photos_in in counts.items() if photos_in >= 2})
    if poor:
        names = ", ".join(f"{name!r} ({counts.get(name, 0)})" for name in poor[:_SHOWN])
        more = f" and {len(poor) - _SHOWN} more" if len(poor) > _SHOWN else ""
        raise DatasetError(
            f"too few readable photos in class {names}{more}: give each class at least 2 (better 20), "
            "or remove its folder"
        )
    if len(counts) < 2:
        raise DatasetError(
            f"{where} has only the class {next(iter(counts))!r}; add a folder with photos of another class"
        )


def _photo_suffix(name: str) -> bool:
    return name.lower().endswith((".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"))


def examine(candidate: Candidate, data: bytes) -> Photo:
    """Decode and hash one file.

    :raises photos.PhotoError: when it is no usable photo.
    """
    if len(data) > MAX_FILE_BYTES:
        megabytes = MAX_FILE_BYTES // 1_000_000
        raise photos.PhotoError(photos.PhotoReason.TOO_LARGE, f"more than {megabytes} MB; save it smaller")
    phash = photos.perceptual_hash(data)
    kept, suffix = photos.stored(data)
    digest = hashlib.sha256(data).hexdigest()
    return Photo(candidate.path, candidate.label, digest, phash, len(kept), suffix)


def scan(
    source: Source, workers: int | None = None, progress: Progress | None = None
) -> tuple[list[Photo], list[Rejected]]:
    """Decode and hash every file of a source, on all cores; memory holds a few photos and one small record
    each.

    :param workers: threads; the decoders leave Python's lock. Default: the cores of this machine.
    :param progress: called with (done, total) now and then.
    :return: the different photos in the order of their paths, and the files left out: unreadable ones,
        copies, and photos that lie in two classes.
    :raises DatasetError: when no data set can be made of what is readable.
    """
    candidates = list(source.candidates())
    rejected = [
        Rejected(name, "lies beside the class folders") for name in source.stray() if _photo_suffix(name)
    ]

    def look(candidate: Candidate) -> Photo | Rejected:
        try:
            if candidate.bytes > MAX_FILE_BYTES:
                raise photos.PhotoError(
                    photos.PhotoReason.TOO_LARGE, f"{candidate.bytes / 1e6:.0f} MB; save it smaller"
                )
            return examine(candidate, source.read(candidate.path))
        except (photos.PhotoError, OSError) as error:
            reason = _unreadable(error) if isinstance(error, OSError) else str(error)
            return Rejected(candidate.path, reason)

    readable: list[Photo] = []
    for done, result in enumerate(ordered_map(look, candidates, workers), start=1):
        if isinstance(result, Photo):
            readable.append(result)
        else:
            rejected.append(result)
        if progress is not None and (done % 50 == 0 or done == len(candidates)):
            progress(done, len(candidates))
    unique, copies = without_copies(readable)
    counts = {candidate.label: 0 for candidate in candidates}
    for photo in unique:
        counts[photo.label] += 1
    check_classes(source, counts, source.folders() if isinstance(source, Foldered) else ())
    return unique, rejected + copies


def without_copies(found: Sequence[Photo]) -> tuple[list[Photo], list[Rejected]]:
    """Each different photo once. One that lies in two classes has no known class: every copy is left out."""
    copies: dict[str, list[Photo]] = defaultdict(list)
    for photo in found:
        copies[photo.sha256].append(photo)
    unique: list[Photo] = []
    rejected: list[Rejected] = []
    for same in copies.values():
        labels = sorted({photo.label for photo in same})
        if len(labels) > 1:
            reason = f"the same photo lies in {len(labels)} classes ({', '.join(labels)}); keep it in one"
            rejected.extend(Rejected(photo.path, reason) for photo in same)
        else:
            unique.append(same[0])
            rejected.extend(Rejected(photo.path, f"copy of {same[0].path}") for photo in same[1:])
    return unique, rejected
