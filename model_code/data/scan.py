"""Look at every file of a source: readable photos become records, the rest is left out with a reason."""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from model_code.data import photos
from model_code.data.layout import Layout, check_classes
from model_code.data.limits import MAX_FILE_BYTES, has_photo_ending
from model_code.data.records import Photo, Rejected
from model_code.data.source import Candidate, Folder, Foldered, Source, _unreadable
from model_code.data.tables import LocalTable, is_table
from model_code.process.cores import cores
from model_code.process.parallel import ordered_map

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Summary:
    """Result of `preflight`: usable photos per class, their bytes, and the files that will be left out."""

    counts: dict[str, int]
    bytes: int
    rejected: tuple[Rejected, ...]

    @property
    def photos(self) -> int:
        """Usable photos in all classes."""
        return sum(self.counts.values())


def local_source(address: Path | str) -> Folder | LocalTable:
    """Return the source at a path: a table by its ending, else a folder."""
    path = Path(address).expanduser()
    return LocalTable(path) if is_table(path.name) and not path.is_dir() else Folder(path)


def preflight(folder: Path | str) -> Summary:
    """Check a folder or a table before anything long starts, reading only the first bytes of each file.

    Raises:
        DatasetError: No classifier can be made of it; the message names the fix.
    """
    source = local_source(folder)
    usable: dict[str, int] = defaultdict(int)
    rejected: list[Rejected] = []
    layout = Layout()
    size = 0
    for candidate in source.candidates():
        if isinstance(source, Foldered):
            layout.add(candidate.path)
        usable[candidate.label] += 0
        if reason := source.fault(candidate.path):
            rejected.append(Rejected(candidate.path, reason))
        else:
            usable[candidate.label] += 1
            size += candidate.bytes
    folders = source.folders() if isinstance(source, Foldered) else ()
    check_classes(source, usable, layout, folders, rejected)
    return Summary(dict(usable), size, tuple(rejected))


def examine(candidate: Candidate, data: bytes) -> Photo:
    """Decode and hash one file.

    Raises:
        PhotoError: It is no usable photo.
    """
    if len(data) > MAX_FILE_BYTES:
        megabytes = MAX_FILE_BYTES // 1_000_000
        raise photos.PhotoError(photos.PhotoReason.TOO_LARGE, f"more than {megabytes} MB; save it smaller")
    phash = photos.perceptual_hash(data)
    kept, suffix = photos.stored(data)
    digest = hashlib.sha256(data).hexdigest()
    return Photo(candidate.path, candidate.label, digest, phash, len(kept), suffix)


Known = Mapping[str, tuple[str, Photo | Rejected]]
"""By path: the stamp of an earlier look, and what was found. A file whose stamp is the same is not read again."""


@dataclass(frozen=True)
class Scan:
    """Result of looking at every file of a source.

    Attributes:
        photos: The different readable photos, in the order of their paths.
        rejected: The files left out: unreadable ones, copies, and photos that are in two classes.
        looks: The finding of every file by path, for the next look.
        read: Number of files that were read.
    """

    photos: list[Photo]
    rejected: list[Rejected]
    looks: dict[str, tuple[str, Photo | Rejected]]
    read: int


def scan(
    source: Source, workers: int | None = None, progress: Progress | None = None
) -> tuple[list[Photo], list[Rejected]]:
    """See `look`, without an earlier one.

    Returns:
        Photos and files left out.

    Raises:
        DatasetError: No data set can be made of what is readable.
    """
    found = look(source, {}, workers, progress)
    return found.photos, found.rejected


def look(source: Source, known: Known, workers: int | None = None, progress: Progress | None = None) -> Scan:
    """Decode and hash every file of a source that changed since the last look.

    Many files are read at once, as the source allows; decoding uses all cores.

    Args:
        source: Lists and reads files.
        known: Findings of the last look.
        workers: Threads that decode. Default: the cores of this machine.
        progress: Called with (done, total) now and then.

    Raises:
        DatasetError: No data set can be made of what is readable.
    """
    candidates = list(source.candidates())
    rejected = [
        Rejected(name, "outside the class folders") for name in source.stray() if has_photo_ending(name)
    ]
    decoders = workers or cores()
    decoding = threading.Semaphore(decoders)
    fresh = [candidate for candidate in candidates if not _is_known(candidate, known)]

    def examined(candidate: Candidate) -> Photo | Rejected:
        try:
            if candidate.bytes > MAX_FILE_BYTES:
                raise photos.PhotoError(
                    photos.PhotoReason.TOO_LARGE, f"{candidate.bytes / 1e6:.0f} MB; save it smaller"
                )
            data = source.read(candidate.path)
            with decoding:
                return examine(candidate, data)
        except (photos.PhotoError, OSError) as error:
            reason = _unreadable(error) if isinstance(error, OSError) else str(error)
            return Rejected(candidate.path, reason)

    results = ordered_map(examined, fresh, max(decoders, source.requests))
    looks: dict[str, tuple[str, Photo | Rejected]] = {}
    readable: list[Photo] = []
    layout = Layout()
    for done, candidate in enumerate(candidates, start=1):
        if isinstance(source, Foldered):
            layout.add(candidate.path)
        found = known[candidate.path][1] if _is_known(candidate, known) else next(results)
        if isinstance(found, Photo):
            readable.append(found)
        else:
            rejected.append(found)
        looks[candidate.path] = (candidate.stamp, found)
        if progress is not None and (done % 50 == 0 or done == len(candidates)):
            progress(done, len(candidates))
    unique, copies = without_copies(readable)
    counts = {candidate.label: 0 for candidate in candidates}
    for photo in unique:
        counts[photo.label] += 1
    folders = source.folders() if isinstance(source, Foldered) else ()
    check_classes(source, counts, layout, folders, rejected)
    return Scan(unique, rejected + copies, looks, len(fresh))


def _is_known(candidate: Candidate, known: Known) -> bool:
    """Tell whether a file was looked at before, under the same class and unchanged since."""
    stamp, found = known.get(candidate.path, ("", None))
    if not candidate.stamp or stamp != candidate.stamp:
        return False
    return isinstance(found, Rejected) or (isinstance(found, Photo) and found.label == candidate.label)


def without_copies(found: Sequence[Photo]) -> tuple[list[Photo], list[Rejected]]:
    """Keep each different photo once. One that is in two classes has no known class: every copy is left out."""
    copies: dict[str, list[Photo]] = defaultdict(list)
    for photo in found:
        copies[photo.sha256].append(photo)
    unique: list[Photo] = []
    rejected: list[Rejected] = []
    for same in copies.values():
        labels = sorted({photo.label for photo in same})
        if len(labels) > 1:
            reason = f"the same photo is in {len(labels)} classes ({', '.join(labels)}); keep it in one"
            rejected.extend(Rejected(photo.path, reason) for photo in same)
        else:
            unique.append(same[0])
            rejected.extend(Rejected(photo.path, f"copy of {same[0].path}") for photo in same[1:])
    return unique, rejected
