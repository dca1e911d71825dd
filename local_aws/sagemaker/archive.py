"""model.tar.gz and sourcedir.tar.gz: packed from folders, unpacked into one."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path

from local_aws.sagemaker.s3_data import DataError

COMPRESSION_LEVEL = 1
"""Weights barely compress: level 1 takes a tenth of the time of the default for about the same size."""


def pack(folders: Sequence[Path], target: Path) -> None:
    """Write `target`, a .tar.gz of the folders' contents. The first folder wins on equal names."""
    seen: set[str] = set()
    with tarfile.open(target, "w:gz", compresslevel=COMPRESSION_LEVEL) as archive:
        for folder in folders:
            for path in sorted(folder.rglob("*")):
                name = str(path.relative_to(folder))
                if name not in seen:
                    seen.add(name)
                    archive.add(path, arcname=name, recursive=False)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar, compressed or not. Members that would land outside, devices and such raise DataError."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{archive.name} cannot be unpacked: {error}") from error


def is_empty(folder: Path) -> bool:
    """Return True when a folder holds no file at all."""
    return not any(path.is_file() for path in folder.rglob("*"))
