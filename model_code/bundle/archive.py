"""The model bundle: `model.tar.gz`, or the same files in a folder, described and sealed by `model.json`.

Writing: fill a folder, `write_card` into it, `pack` it. Reading: `Bundle.open`, which checks everything it
returns. Nothing here imports torch, so Airflow and the server's front process can read a card cheaply.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from model_code.bundle.card import (
    CARD,
    CODE,
    ONNX,
    ONNX_INT8,
    RUNTIME_FILES,
    SAFETENSORS,
    SCHEMA_VERSION,
    BundleError,
    FileEntry,
    Golden,
    ModelCard,
    check_member_name,
)
from model_code.process.files import sha256_of

__all__ = [
    "CARD",
    "CODE",
    "ONNX",
    "ONNX_INT8",
    "RUNTIME_FILES",
    "SAFETENSORS",
    "SCHEMA_VERSION",
    "Bundle",
    "BundleError",
    "FileEntry",
    "Golden",
    "ModelCard",
    "pack",
    "unpack",
    "write_card",
]

# A ViT-L bundle (weights twice, in torch's format and ONNX's) stays under 3 GB; these limits only stop abuse.
MAX_UNPACKED_BYTES = 8 << 30
MAX_MEMBERS = 10_000
MAX_CARD_BYTES = 64 << 20
_CHUNK = 1 << 20
_IGNORED = re.compile(r"(^|/)(__pycache__/|\.)")


@dataclass(frozen=True)
class Bundle:
    """An opened bundle, every listed file checked. A context manager: it removes what it unpacked."""

    directory: Path
    card: ModelCard
    _unpacked: tempfile.TemporaryDirectory[str] | None = field(default=None, repr=False, compare=False)

    @classmethod
    def open(cls, path: Path | str, workdir: Path | None = None) -> Bundle:
        """Open a folder (SageMaker's /opt/ml/model) or a `model.tar.gz`.

        Args:
            path: the folder or the archive.
            workdir: where to unpack an archive, kept; by default a temporary folder that `close` removes.

        Raises:
            BundleError: whatever is wrong, in one line naming the fix.
        """
        path = Path(path)
        if path.is_dir():
            return cls(path, _verified_card(path))
        if not path.is_file():
            raise BundleError(f"{path}: no such model: give a {CARD}'s folder or a model.tar.gz")
        temporary = None
        if workdir is None:
            temporary = tempfile.TemporaryDirectory(prefix="bundle-", ignore_cleanup_errors=True)
            workdir = Path(temporary.name)
        try:
            unpack(path, workdir)
            return cls(workdir, _verified_card(workdir), temporary)
        except BaseException:
            if temporary is not None:
                temporary.cleanup()
            raise

    def file(self, name: str) -> Path:
        """Path of a listed file.

        Raises:
            BundleError: the card does not list it.
        """
        if name not in self.card.files:
            raise BundleError(
                f"{self.directory}: the bundle has no {name}; it has {', '.join(sorted(self.card.files))}"
            )
        return self.directory / name

    def close(self) -> None:
        """Remove the temporary folder, if `open` made one."""
        if self._unpacked is not None:
            self._unpacked.cleanup()

    def __enter__(self) -> Bundle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_card(directory: Path, card: Mapping[str, Any]) -> ModelCard:
    """Seal `directory`: list every file in it with its digest, and write `model.json`.

    Args:
        directory: the unpacked bundle.
        card: the fields of `ModelCard` other than `files` and `schema_version`.

    Returns:
        The card as written.

    Raises:
        BundleError: the fields contradict each other or the files.
    """
    entries = {name: asdict(_entry(directory / name)) for name in _listing(directory)}
    document = {**card, "schema_version": SCHEMA_VERSION, "files": entries}
    # A round trip through JSON, so that what is returned is what a reader will see.
    text = json.dumps(document, indent=1, allow_nan=False)
    written = ModelCard.from_json(json.loads(text))
    temporary = directory / f".{CARD}.part"
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, directory / CARD)
    return written


def pack(directory: Path, archive: Path) -> None:
    """Write `directory` as a tar.gz whose bytes depend on the files' names and contents only."""
    partial = archive.with_name(f".{archive.name}.part")
    # Weights hardly compress: level 1 costs a fifth of level 9's time for the same size within a percent.
    with (
        partial.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=1, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in [CARD, *_listing(directory)]:
            source = directory / name
            member = tarfile.TarInfo(name)
            member.size = source.stat().st_size
            member.mode = 0o644
            with source.open("rb") as stream:
                tar.addfile(member, stream)
    os.replace(partial, archive)


def unpack(archive: Path, directory: Path) -> None:
    """Unpack `archive` into `directory`: plain files only, none outside it, within the limits.

    Raises:
        BundleError: truncated, not an archive, too big, or a member that an honest bundle never has.
    """
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with gzip.open(archive) as zipped:
            with tarfile.open(fileobj=zipped, mode="r|") as tar:
                for member in _honest_members(tar, archive, shutil.disk_usage(directory).free):
                    _write_member(tar, member, directory)
            # Only reading past tar's padding makes gzip compare its checksum.
            zipped.read(_CHUNK)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise BundleError(
            f"{archive} is truncated, damaged or no model.tar.gz ({error}): download it again"
        ) from error


def _write_member(tar: tarfile.TarFile, member: tarfile.TarInfo, directory: Path) -> None:
    """Write a member whose name was checked. Without tarfile's filter, which Python before 3.11.4 does not have."""
    target = directory / member.name
    content = tar.extractfile(member)
    if content is None:
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with content, target.open("wb") as file:
        shutil.copyfileobj(content, file)


def _honest_members(tar: tarfile.TarFile, archive: Path, free: int) -> Iterator[tarfile.TarInfo]:
    total = 0
    for count, member in enumerate(tar, start=1):
        check_member_name(member.name, archive)
        if not (member.isreg() or member.isdir()):
            raise BundleError(
                f"{archive}: member {member.name!r} is a link or a device: do not use this archive"
            )
        total += member.size
        if count > MAX_MEMBERS or total > MAX_UNPACKED_BYTES:
            raise BundleError(
                f"{archive} unpacks to more than {MAX_MEMBERS} files or {MAX_UNPACKED_BYTES >> 30} GiB: "
                "not a bundle of ours, do not use it"
            )
        if total > free:
            raise BundleError(
                f"{archive} unpacks to more than the {free >> 20} MiB free on disk: free some space"
            )
        yield member


def _verified_card(directory: Path) -> ModelCard:
    source = directory / CARD
    if not source.is_file():
        raise BundleError(f"{directory} has no {CARD}: give the folder or archive that training wrote")
    if source.stat().st_size > MAX_CARD_BYTES:
        raise BundleError(f"{source} is larger than {MAX_CARD_BYTES >> 20} MiB: do not use it")
    try:
        document = json.loads(source.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{source} is not JSON ({error}): download or export the model again") from error
    card = ModelCard.from_json(document)
    for name, expected in card.files.items():
        _verify(directory / name, expected)
    if any(name.startswith(f"{CODE}/") for name in card.files):
        _refuse_foreign_code(directory, card)
    return card


def _verify(path: Path, expected: FileEntry) -> None:
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{path} is missing: download or export the model again")
    size = path.stat().st_size
    if size != expected.bytes:
        raise BundleError(f"{path} has {size} bytes, {CARD} says {expected.bytes}: download the model again")
    if sha256_of(path) != expected.sha256:
        raise BundleError(
            f"{path} is not the file that {CARD} describes (SHA-256 differs): download the model again"
        )


def _refuse_foreign_code(directory: Path, card: ModelCard) -> None:
    # The container puts code/ on its path, so an unlisted file would be imported.
    for name in _listing(directory / CODE):
        if f"{CODE}/{name}" not in card.files:
            raise BundleError(f"{directory / CODE / name} is not listed in {CARD}: do not use it")


def _listing(directory: Path) -> list[str]:
    """Return files under `directory` as sorted POSIX names, leaving out the card, caches and unfinished files."""
    names = (path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    return sorted(name for name in names if name != CARD and not _IGNORED.search(name))


def _entry(path: Path) -> FileEntry:
    return FileEntry(sha256_of(path), path.stat().st_size)
