"""A folder with a folder per class: what is in it, what is wrong with it, and what each photo is."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol, TypeVar, runtime_checkable

from model_code import photos
from model_code.shards import key_of

MAX_FILE_BYTES = 50_000_000
# Folders and files that operating systems leave behind.
_JUNK = {"__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir"}
_SPLIT_NAMES = {"train", "training", "valid", "val", "validation", "test", "testing"}
_SNIFFED = 16
_SHOWN = 5

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[int, int], None]


class DatasetError(ValueError):
    """A folder that no data set can be made of. The message is one line that names the fix."""


@dataclass(frozen=True)
class Candidate:
    """A file that may be a photo: its path below the source, its class and size in bytes."""

    path: str
    label: str
    bytes: int


@dataclass(frozen=True)
class Photo:
    """A readable photo. `path` is one of the places it was found at; the SHA-256 is its identity."""

    path: str
    label: str
    sha256: str
    phash: int | None
    bytes: int
    suffix: str

    @property
    def key(self) -> str:
        """The name of the photo inside shards and predictions."""
        return key_of(self.sha256)


@dataclass(frozen=True)
class Rejected:
    """A file that was left out, and why. Both are for people to read: they always encode as UTF-8."""

    path: str
    reason: str

    def __post_init__(self) -> None:
        # A file name on Linux is any bytes. Python holds those that are no UTF-8 as lone surrogates, which no JSON file
        # and no log can hold.
        for name, text in vars(self).copy().items():
            object.__setattr__(self, name, text.encode("utf-8", "backslashreplace").decode())


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


class Source(Protocol):
    """Where photos are: a local folder, or an S3 prefix."""

    def describe(self) -> str:
        """The address, for messages."""

    def candidates(self) -> Iterable[Candidate]:
        """Every file below a class folder; hidden files and operating systems' litter are passed over."""

    def stray(self) -> list[str]:
        """Files beside the class folders."""

    def read(self, path: str) -> bytes:
        """The bytes of one file.

        :raises OSError: when it cannot be read.
        """


@runtime_checkable
class Foldered(Protocol):
    """A source whose class folders exist by themselves, as on a disk; in S3 there are only the names of files."""

    def folders(self) -> list[str]:
        """The classes that have a folder, with or without a photo in it, sorted."""


@dataclass(frozen=True)
class Folder:
    """A local folder with a folder per class; photos may lie in sub-folders of their class."""

    root: Path

    def describe(self) -> str:
        """The address, for messages."""
        return str(self.root)

    def candidates(self) -> Iterator[Candidate]:
        """Files of all classes, in the order of their paths.

        A sub-folder behind a link is not followed, since it may lead anywhere, even back here; it comes as a file that
        cannot be read.

        :raises DatasetError: when a folder cannot be listed: its photos would silently be missing.
        """
        for label in sorted(entry.name for entry in self._entries() if entry.is_dir()):
            for folder, subfolders, names in os.walk(self.root / label, onerror=_unlisted):
                links = [name for name in subfolders if Path(folder, name).is_symlink()]
                subfolders[:] = sorted(name for name in subfolders if visible(name) and name not in links)
                for name in sorted(filter(visible, names + links)):
                    path = Path(folder, name)
                    yield Candidate(path.relative_to(self.root).as_posix(), class_name(label), _size(path))

    def folders(self) -> list[str]:
        """The classes that have a folder, with or without a photo in it."""
        return sorted(class_name(entry.name) for entry in self._entries() if entry.is_dir())

    def stray(self) -> list[str]:
        """Files beside the class folders."""
        return sorted(entry.name for entry in self._entries() if not entry.is_dir())

    def read(self, path: str) -> bytes:
        """The bytes of one file."""
        return (self.root / path).read_bytes()

    def fault(self, path: str) -> str | None:
        """Why one file can be no photo, by its first bytes; None where they are those of one."""
        try:
            with (self.root / path).open("rb") as file:
                start = file.read(_SNIFFED)
        except OSError as error:
            return _unreadable(error)
        if not start:
            return photos.PhotoReason.EMPTY.value
        return None if photos.sniff(start) else photos.PhotoReason.NOT_A_PHOTO.value

    def _entries(self) -> list[os.DirEntry[str]]:
        if not self.root.exists():
            raise DatasetError(
                f"{self.root} does not exist; point DATA at a folder with one folder per class"
            )
        if not self.root.is_dir():
            raise DatasetError(f"{self.root} is a file; point DATA at a folder with one folder per class")
        try:
            return [entry for entry in os.scandir(self.root) if visible(entry.name)]
        except OSError as error:
            _unlisted(error)


def _unlisted(error: OSError) -> NoReturn:
    raise DatasetError(
        f"folder {error.filename!r} cannot be listed ({error.strerror}); make it readable, or remove it"
    ) from error


def _unreadable(error: OSError) -> str:
    if isinstance(error, IsADirectoryError):
        return "a link to a folder, which is not followed; put the photos themselves there"
    return "cannot be read"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # reading it will say so
        return 0


def visible(name: str) -> bool:
    """Whether a file or folder is the user's own: not hidden, not an operating system's litter."""
    return not name.startswith(".") and name not in _JUNK


def class_name(folder: str) -> str:
    """A folder's name as a class: composed Unicode, so that it is the same from macOS, Linux and S3.

    :raises DatasetError: for names that would break logs and tables.
    """
    name = unicodedata.normalize("NFC", folder)
    if not name.isprintable() or len(name.encode()) > 200:
        raise DatasetError(
            f"class folder {folder!r} has an unusable name; rename it (printable, up to 200 bytes)"
        )
    return name


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
    suffix = photos.PHOTO_SUFFIXES[photos.sniff(data[:_SNIFFED]) or "JPEG"]
    digest = hashlib.sha256(data).hexdigest()
    return Photo(candidate.path, candidate.label, digest, phash, len(data), suffix)


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


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None
) -> Iterator[Result]:
    """`map` on threads, results in order; few items are under way at a time, so memory does not grow."""
    threads = workers or os.cpu_count() or 1
    waiting = []
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= 4 * threads:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()
