"""Stores of a data set's versions: the part common to folders and S3, and the folder."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from model_code.data.manifest import Manifest
from model_code.data.shards import Split
from model_code.data.versions import looks
from model_code.data.versions.columns import Findings
from model_code.data.versions.plan import Version
from model_code.data.versions.rows import Rows

POINTER = "latest.json"


def channels_of(manifest: Manifest, bucket: str) -> dict[str, bytes]:
    """Return SageMaker's ManifestFile of each split, by file name."""
    return {
        f"{split.value}.manifest": json.dumps(manifest.manifest_file(split, bucket)).encode()
        for split in Split
    }


class ConcurrentUpload(RuntimeError):
    """Another version of the data set was published between this one's start and its end."""


class Store(ABC):
    """The versions of one data set. Keys are relative to it."""

    name: str

    @abstractmethod
    def uri(self, key: str) -> str:
        """The address of `key`, for people and jobs."""

    @abstractmethod
    def key(self, key: str) -> str:
        """`key` as the manifest lists it: relative to the bucket."""

    @abstractmethod
    def read(self, key: str) -> tuple[bytes, str] | None:
        """The bytes at `key` and a tag that changes with them; None where there is nothing."""

    @abstractmethod
    def open(self, key: str) -> BinaryIO | None:
        """Open what is at `key`, to be read in parts; None where there is nothing."""

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Tell whether there is something at `key`."""

    @abstractmethod
    def put(self, key: str, body: bytes) -> None:
        """Write a small object, whole or not at all."""

    @abstractmethod
    def swap(self, key: str, body: bytes, tag: str | None) -> bool:
        """Write a small object in place of the one with `tag` (None: in place of nothing); False if it is another."""

    @abstractmethod
    def put_file(self, key: str, path: Path) -> None:
        """Write the file at `path`, whole or not at all."""

    def channels(self, manifest: Manifest) -> dict[str, bytes]:
        """Files next to the manifest through which jobs read the shards, by name."""
        return {}

    def newest(self) -> tuple[Version | None, str | None]:
        """Read the newest version and the tag of the pointer to it; None and None for a new data set.

        Raises:
            ManifestError: It is damaged or from a newer release.
        """
        found = self.read(POINTER)
        if found is None:
            return None, None
        folder = f"versions/{json.loads(found[0])['version']}"
        version = Version(
            manifest=Manifest.from_json(self._there(f"{folder}/manifest.json")),
            photos=self._rows(f"{folder}/photos.jsonl"),
            retired={
                sha256: Split(split)
                for sha256, split in json.loads(self._there(f"{folder}/retired.json")).items()
            },
        )
        return version, found[1]

    def looks(self, version: Version | None) -> Findings:
        """Read the findings of the look that made a version; none for versions of earlier releases."""
        file = self.open(_looks(version)) if version else None
        if file is None:
            return Findings()
        with file:
            return looks.read(file)

    def keep_looks(
        self, version: Version, found: Findings, rows: Iterable[int], parent: Version | None = None
    ) -> None:
        """Write the findings of the look that made a version, for the next look.

        Args:
            version: The version.
            found: All findings.
            rows: Those that count.
            parent: A version whose findings count, too: they are copied as they are.
        """
        earlier = self.open(_looks(parent)) if parent else None
        with tempfile.TemporaryDirectory(prefix="ml-pipeline-looks-") as folder, earlier or nullcontext():
            path = Path(folder, "looks")
            with path.open("wb") as file:
                if earlier:
                    looks.extend(file, earlier, found, rows)
                else:
                    looks.write(file, found, rows)
            self.put_file(_looks(version), path)

    def publish(self, version: Version, tag: str | None) -> int:
        """Write the version's files, the manifest and the pointer last; returns their bytes.

        Args:
            version: The version.
            tag: Tag of the pointer to the version that it grew from.

        Raises:
            ConcurrentUpload: The pointer has changed since.
        """
        folder = f"versions/{version.manifest.version}"
        with tempfile.TemporaryDirectory(prefix="ml-pipeline-version-") as temporary:
            path = Path(temporary, "photos.jsonl")
            with path.open("wb") as file:
                file.writelines(version.photos.parts())
            sent = path.stat().st_size
            self.put_file(f"{folder}/photos.jsonl", path)
        files = {
            "retired.json": json.dumps(dict(version.retired), sort_keys=True).encode(),
            **self.channels(version.manifest),
            "manifest.json": version.manifest.to_json().encode(),
        }
        for name, body in files.items():
            self.put(f"{folder}/{name}", body)
        pointer = json.dumps({"version": version.manifest.version}).encode()
        if not self.swap(POINTER, pointer, tag):
            raise ConcurrentUpload(
                f"another upload of data set {self.name!r} finished meanwhile; run this one again: it uploads only "
                "what is missing"
            )
        return sent + sum(map(len, files.values())) + len(pointer)

    def _rows(self, key: str) -> Rows:
        if (file := self.open(key)) is None:
            raise self._missing(key)
        with file:
            return Rows.read(file)

    def _there(self, key: str) -> bytes:
        found = self.read(key)
        if found is None:
            raise self._missing(key)
        return found[0]

    def _missing(self, key: str) -> FileNotFoundError:
        return FileNotFoundError(
            f"{self.uri(key)} is missing; restore it, or start a data set of another name"
        )


def _looks(version: Version) -> str:
    return f"versions/{version.manifest.version}/{looks.NAME}"


def check_name(name: str) -> None:
    """Refuse a data set name that S3 keys, SageMaker names and URLs do not all accept.

    Raises:
        ValueError: With a name that works.
    """
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", name):
        raise ValueError(
            f"{name!r} is not a data set name: use 1 to 40 lower-case letters, digits and inner hyphens, "
            "like 'dog-breeds'"
        )


@dataclass(frozen=True)
class FolderStore(Store):
    """Versions in a local folder, laid out as in the bucket."""

    root: Path
    name: str

    def uri(self, key: str) -> str:
        """The path of `key`."""
        return str(self.root / self.key(key))

    def key(self, key: str) -> str:
        """`key` relative to the folder."""
        return f"datasets/{self.name}/{key}"

    def read(self, key: str) -> tuple[bytes, str] | None:
        """The bytes at `key` and their digest."""
        try:
            data = (self.root / self.key(key)).read_bytes()
        except FileNotFoundError:
            return None
        return data, hashlib.sha256(data).hexdigest()

    def open(self, key: str) -> BinaryIO | None:
        """Open a file."""
        try:
            return (self.root / self.key(key)).open("rb")
        except FileNotFoundError:
            return None

    def exists(self, key: str) -> bool:
        """Tell whether there is a file."""
        return (self.root / self.key(key)).exists()

    def put(self, key: str, body: bytes) -> None:
        """Write a file; it appears when it is on disk."""
        path = self._place(key)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".part-", delete=False) as file:
            try:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
                os.chmod(file.name, 0o644)
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise

    def swap(self, key: str, body: bytes, tag: str | None) -> bool:
        """Write a file under a lock that other processes honor."""
        with self._place(f".{key}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = self.read(key)
            if (found[1] if found else None) != tag:
                return False
            self.put(key, body)
            return True

    def put_file(self, key: str, path: Path) -> None:
        """Move a file here, across file systems if need be."""
        target = self._place(key)
        part = target.with_name(f".part-{target.name}")
        shutil.move(path, part)
        os.replace(part, target)

    def _place(self, key: str) -> Path:
        path = self.root / self.key(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
