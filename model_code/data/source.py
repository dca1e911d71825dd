"""Sources of photos: a source lists candidates and opens them. Here, a folder on disk."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol, runtime_checkable

from model_code.data import photos
from model_code.data.limits import SNIFFED_BYTES
from model_code.process.cores import cores

# Folders and files that operating systems, storage devices and tools leave behind, in lower case.
_LITTER = {
    "__macosx", "icon\r", "network trash folder", "temporary items", "thevolumesettingsfolder",  # macOS
    "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$recycle.bin", "recycler",
    "system volume information",  # Windows
    "lost+found", "aquota.user", "aquota.group",  # Linux
    "@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot",  # NAS devices
    "__pycache__", "_success",  # tools
}  # fmt: skip
_LITTER_ENDINGS = ("_$folder$", "~")  # Hadoop's markers of folders in S3, editors' copies


class DatasetError(ValueError):
    """No data set can be made of a source. The message is one line that names the fix."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that may be a photo.

    Attributes:
        path: Its path below the source.
        label: Its class.
        bytes: Its size.
        stamp: Changes when the file may have changed; empty: unknown, so it is always read.
    """

    path: str
    label: str
    bytes: int
    stamp: str = ""


class Source(Protocol):
    """A place of photos: a local folder, an S3 prefix, a table."""

    @property
    def requests(self) -> int:
        """Most files to read at once."""

    def describe(self) -> str:
        """Return the address, for messages."""

    def candidates(self) -> Iterable[Candidate]:
        """Return every file below a class folder, except hidden files and litter."""

    def stray(self) -> list[str]:
        """Return files outside the class folders."""

    def read(self, path: str) -> bytes:
        """Return the bytes of one file.

        Raises:
            OSError: It cannot be read.
        """


@runtime_checkable
class Foldered(Protocol):
    """A source whose class folders exist without files in them, as on a disk."""

    def folders(self) -> list[str]:
        """Return the classes that have a folder, with or without a photo in it, sorted."""


@dataclass(frozen=True)
class Folder:
    """A local folder with a folder per class; photos may be in sub-folders of their class."""

    root: Path

    @property
    def requests(self) -> int:
        """Most files to read at once: decoding them is what takes the time."""
        return cores()

    def describe(self) -> str:
        """Return the address, for messages."""
        return str(self.root)

    def candidates(self) -> Iterator[Candidate]:
        """Yield files of all classes, in the order of their paths.

        A link to a sub-folder is not followed, since it may lead anywhere, even back here; it is listed as a file that
        cannot be read.

        Raises:
            DatasetError: A folder cannot be listed: its photos would silently be missing.
        """
        for label in sorted(entry.name for entry in self._entries() if entry.is_dir()):
            for folder, subfolders, names in os.walk(self.root / label, onerror=_unlisted):
                links = [name for name in subfolders if Path(folder, name).is_symlink()]
                subfolders[:] = sorted(name for name in subfolders if visible(name) and name not in links)
                for name in sorted(filter(visible, names + links)):
                    path = Path(folder, name)
                    size, stamp = file_stamp(path)
                    yield Candidate(path.relative_to(self.root).as_posix(), class_name(label), size, stamp)

    def folders(self) -> list[str]:
        """Return the classes that have a folder, with or without a photo in it."""
        return sorted(class_name(entry.name) for entry in self._entries() if entry.is_dir())

    def stray(self) -> list[str]:
        """Return files outside the class folders."""
        return sorted(entry.name for entry in self._entries() if not entry.is_dir())

    def read(self, path: str) -> bytes:
        """Return the bytes of one file."""
        return (self.root / path).read_bytes()

    def fault(self, path: str) -> str | None:
        """See `fault`."""
        return fault(self.root / path)

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


def fault(file: Path) -> str | None:
    """Return the reason why a file cannot be a photo, by its first bytes; None where they are those of one."""
    try:
        with file.open("rb") as opened:
            photos.kind_of(opened.read(SNIFFED_BYTES))
    except OSError as error:
        return _unreadable(error)
    except photos.PhotoError as error:
        return str(error)
    return None


def _unlisted(error: OSError) -> NoReturn:
    raise DatasetError(
        f"folder {error.filename!r} cannot be listed ({error.strerror}); make it readable, or remove it"
    ) from error


def _unreadable(error: OSError) -> str:
    if isinstance(error, IsADirectoryError):
        return "a link to a folder, which is not followed; put the photos themselves there"
    return str(error) if error.errno is None and str(error) else "cannot be read"


def file_stamp(path: Path) -> tuple[int, str]:
    """Size in bytes, and a stamp of size, time of change and inode."""
    try:
        found = path.stat()
    except OSError:  # reading it will say so
        return 0, ""
    return found.st_size, f"{found.st_size}:{found.st_mtime_ns}:{found.st_ino}"


def visible(name: str) -> bool:
    """Tell whether a file or folder is the user's own: not hidden, and no litter of a system."""
    lower = name.lower()
    return not name.startswith(".") and lower not in _LITTER and not lower.endswith(_LITTER_ENDINGS)


def class_name(folder: str) -> str:
    """Return a folder's name as a class: composed Unicode, so that it is the same from macOS, Linux and S3.

    Raises:
        DatasetError: The name would break logs and tables.
    """
    name = unicodedata.normalize("NFC", folder)
    if not name.strip() or not name.isprintable() or len(name.encode()) > 200:
        raise DatasetError(
            f"class folder {folder!r} has an unusable name; rename it (printable, up to 200 bytes)"
        )
    return name
