"""Look at every file of a source: readable photos become records, the rest is left out with a reason."""

from __future__ import annotations

import hashlib
import threading
from array import array
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model_code.data import photos
from model_code.data.layout import Layout, check_classes
from model_code.data.limits import MAX_FILE_BYTES, has_photo_ending
from model_code.data.records import Photo, Rejected, Unread
from model_code.data.source import Candidate, Folder, Foldered, Source, _unreadable
from model_code.data.tables import LocalTable, is_table
from model_code.data.versions.columns import Findings, Photos
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


@dataclass(frozen=True)
class Scan:
    """Result of looking at every file of a source.

    Attributes:
        photos: The different readable photos, in the order of their paths.
        rejected: The files left out: unreadable ones, copies, and photos that are in two classes.
        found: All findings, earlier ones included.
        rows: The finding of every file of the source that could be read, for the next look.
        read: Number of files that were read.
    """

    photos: Photos
    rejected: list[Rejected]
    found: Findings
    rows: array[int]
    read: int


def scan(
    source: Source, workers: int | None = None, progress: Progress | None = None
) -> tuple[Photos, list[Rejected]]:
    """See `look`, without an earlier one.

    Returns:
        Photos and files left out.

    Raises:
        DatasetError: No data set can be made of what is readable.
    """
    found = look(source, Findings(), workers, progress)
    return found.photos, found.rejected


def look(
    source: Source,
    known: Findings,
    workers: int | None = None,
    progress: Progress | None = None,
    looked: Callable[[Findings, int], object] | None = None,
) -> Scan:
    """Decode and hash every file of a source that changed since the last look.

    Many files are read at once, as the source allows; decoding uses all cores.

    Args:
        source: Lists and reads files.
        known: Findings of the last look; new ones are added.
        workers: Threads that decode. Default: the cores of this machine.
        progress: Called with (done, total) now and then.
        looked: Called with the findings and the row of each file that could be read.

    Raises:
        DatasetError: No data set can be made of what is readable.
    """
    rows, labels, layout, first = array("i"), set(), Layout(), len(known)
    find = known.finder()
    foldered = source if isinstance(source, Foldered) else None
    for candidate in source.candidates():
        if foldered is not None:
            layout.add(candidate.path)
        labels.add(candidate.label)
        row = find(candidate.path) if candidate.stamp else None
        if row is None or not unchanged(candidate, known, row):
            row = known.expect(candidate.path, candidate.stamp, candidate.label, candidate.bytes)
        rows.append(row)
    read = len(known) - first
    say = progress or (lambda done, total: None)
    unread = _read(
        source,
        known,
        first,
        workers or cores(),
        lambda done: say(len(rows) - read + done, len(rows)),
        looked or (lambda found, row: None),
    )
    everything = np.frombuffer(rows, np.int32) if rows else np.empty(0, np.int32)
    readable = Photos(known, everything[known.are_photos(everything)])
    rejected = [
        Rejected(name, "outside the class folders") for name in source.stray() if has_photo_ending(name)
    ]
    rejected += known.rejections(everything)
    unique, copies = without_copies(readable)
    usable = dict(
        zip(unique.names, np.bincount(unique.labels, minlength=len(unique.names)).tolist(), strict=True)
    )
    counts = {label: usable.get(label, 0) for label in labels}
    check_classes(source, counts, layout, foldered.folders() if foldered is not None else (), rejected)
    if unread:
        rows = array("i", (row for row in rows if row not in unread))
    return Scan(unique, rejected + copies, known, rows, read)


def _read(
    source: Source,
    found: Findings,
    first: int,
    decoders: int,
    say: Callable[[int], object],
    looked: Callable[[Findings, int], object],
) -> set[int]:
    """Read the files of all rows from `first` on; returns the rows of those that cannot be read."""
    decoding = threading.Semaphore(decoders)
    unread: set[int] = set()

    def examined(candidate: Candidate) -> Photo | Rejected:
        try:
            if candidate.bytes > MAX_FILE_BYTES:
                raise photos.PhotoError(
                    photos.PhotoReason.TOO_LARGE, f"{candidate.bytes / 1e6:.0f} MB; save it smaller"
                )
            data = source.read(candidate.path)
            with decoding:
                return examine(candidate, data)
        except photos.PhotoError as error:
            return Rejected(candidate.path, str(error))
        except OSError as error:
            return Unread(candidate.path, _unreadable(error))

    candidates = (found.candidate(row) for row in range(first, len(found)))
    results = ordered_map(examined, candidates, max(decoders, source.requests))
    say(0)
    for done, result in enumerate(results, start=1):
        found.settle(first + done - 1, result)
        if isinstance(result, Unread):
            unread.add(first + done - 1)
        else:
            looked(found, first + done - 1)
        if done % 50 == 0 or first + done == len(found):
            say(done)
    return unread


def unchanged(candidate: Candidate, known: Findings, row: int) -> bool:
    """Tell whether a file is as it was at an earlier look, and under the same class."""
    return known.stamp(row) == candidate.stamp and (
        known.labels[row] == candidate.label or not known.is_photo(row)
    )


def without_copies(found: Photos) -> tuple[Photos, list[Rejected]]:
    """Keep each different photo once. One that is in two classes has no known class: every copy is left out."""
    digests = found.digests
    order = np.argsort(digests, kind="stable")
    same = digests[order][1:] == digests[order][:-1]
    copies: dict[int, list[int]] = {}
    first = -1
    for at, again in enumerate(same.tolist()):
        if not again:
            first = -1
            continue
        first = at if first < 0 else first
        copies.setdefault(int(order[first]), [int(order[first])]).append(int(order[at + 1]))
    out: list[int] = []
    rejected: list[Rejected] = []
    for _, members in sorted(copies.items()):
        labels = sorted(set(map(found.label, members)))
        if len(labels) > 1:
            reason = f"the same photo is in {len(labels)} classes ({', '.join(labels)}); keep it in one"
        else:
            reason = f"copy of {found.path(members[0])}"
            members = members[1:]
        out += members
        rejected += [Rejected(found.path(at), reason) for at in members]
    return found.without(out), rejected
