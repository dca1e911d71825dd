"""Where photos come from: a source lists candidates and opens them; here, a folder on disk."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol, runtime_checkable

from model_code.data import photos
from model_code.data.limits import SNIFFED_BYTES

# Folders and files that operating systems leave behind.
_JUNK = {"__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir"}


class DatasetError(ValueError):
    """A folder that no data set can be made of. The message is one line that names the fix."""


@dataclass(frozen=True)
class Candidate:
    """A file that may be a photo: its path below the source, its class and size in bytes."""

    path: str
    label: str
    bytes: int


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
                start = file.read(SNIFFED_BYTES)
        except OSError as error:
            return _unreadable(error)
        try:
            photos.kind_of(start)
        except photos.PhotoError as error:
            return str(error)
        return None

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
