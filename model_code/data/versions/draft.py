"""A version in the making: files that a job leaves for S3. No one sees the version until a pointer to it is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from model_code.data.manifest import Manifest
from model_code.data.versions.store import POINTER, FolderStore, channels_of


@dataclass(frozen=True)
class Draft(FolderStore):
    """The next version of a data set in S3, in the folders `shards`, `thumbnails` and `version` of `root`.

    Attributes:
        bucket: The bucket of the data set.
        parent: Its newest version; None: it has none.
        earlier: Folder with the files of that version.
        shards: The shards that the data set has with their thumbnails, by SHA-256.
    """

    bucket: str
    parent: str | None
    earlier: Path
    shards: Mapping[str, int]

    def uri(self, key: str) -> str:
        """The address that `key` will have."""
        return f"s3://{self.bucket}/{self.key(key)}"

    def read(self, key: str) -> tuple[bytes, str] | None:
        """The bytes of a file of the parent version; what is written here is not read again."""
        if key == POINTER:
            return (json.dumps({"version": self.parent}).encode(), "") if self.parent else None
        file = self.open(key)
        if file is None:
            return None
        with file:
            return file.read(), ""

    def open(self, key: str) -> BinaryIO | None:
        """Open a file of the parent version."""
        name = key.removeprefix(f"versions/{self.parent}/")
        try:
            return None if name == key else (self.earlier / name).open("rb")
        except FileNotFoundError:
            return None

    def exists(self, key: str) -> bool:
        """Tell whether the data set has a shard, or will have a file."""
        folder, _, name = key.partition("/")
        there = folder in ("shards", "thumbnails") and name.partition(".")[0] in self.shards
        return there or self._place(key).exists()

    def swap(self, key: str, body: bytes, tag: str | None) -> bool:
        """Leave the pointer alone: the caller of the job writes it."""
        return True

    def channels(self, manifest: Manifest) -> dict[str, bytes]:
        """See `Store.channels`."""
        return channels_of(manifest, self.bucket)

    def _place(self, key: str) -> Path:
        folder, _, name = key.partition("/")
        path = self.root / "version" / name.partition("/")[2] if folder == "versions" else self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
