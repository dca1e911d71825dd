"""Embedding files, one safetensors file per shard, and the identity of their embedder. Torch-free."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from model_code.data.shards import Split
from model_code.data.transform import Transform

SCHEMA_VERSION = 1
# Raise it when the same photo, weights and settings would give another embedding; stored ones are then not reused.
# 2: embedded color profiles are converted to sRGB.
CODE = 2
NO_WEIGHTS = "none"


class EmbeddingsError(ValueError):
    """An embeddings file that is damaged, too new or does not belong with the others."""


@dataclass(frozen=True)
class Embedder:
    """The settings that turn a photo into its embeddings. Equal `id`s mean interchangeable files.

    Attributes:
        architecture: The backbone's name at torchvision, or `timm:` and that at timm.
        weights_sha256: SHA-256 of the weights file, or `NO_WEIGHTS` for an untrained backbone (seed 0).
        transform: Photo bytes to network input.
        views: Views of each training photo, at least 1; other splits have one.
        code: Version of this computation.
    """

    architecture: str
    weights_sha256: str
    transform: Transform
    views: int = 1
    code: int = CODE

    def __post_init__(self) -> None:
        if not 1 <= self.views <= 64:
            raise ValueError(f"views must be 1 to 64, not {self.views}")

    @property
    def id(self) -> str:
        """16 hex digits; the folder name under `embeddings/`."""
        text = json.dumps(self._identity(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def views_of(self, split: Split) -> int:
        """Views of a photo of `split`: only training photos are augmented."""
        return self.views if split is Split.TRAIN else 1

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, the id included; `from_dict` gives back an equal embedder."""
        return {"id": self.id, **self._identity()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Embedder:
        """Inverse of `to_dict`; unknown keys are ignored."""
        return cls(
            architecture=fields["architecture"],
            weights_sha256=fields["weights_sha256"],
            transform=Transform.from_dict(fields["transform"]),
            views=int(fields["views"]),
            code=int(fields["code"]),
        )

    def _identity(self) -> dict[str, Any]:
        return {
            "architecture": self.architecture,
            "weights_sha256": self.weights_sha256,
            "transform": self.transform.to_dict(),
            "views": self.views,
            "code": self.code,
        }


def embedder_id(architecture: str, weights_sha256: str | None, transform: Transform, views: int) -> str:
    """Return the id of the embedder with these settings; None or "none" stands for an untrained backbone."""
    return Embedder(architecture, weights_sha256 or NO_WEIGHTS, transform, views).id


@dataclass(frozen=True)
class Embeddings:
    """The embeddings of one shard.

    Attributes:
        embeddings: float16 [rows, dim], one row per (photo, view).
        photo: int32 [rows], index into `keys`.
        view: int32 [rows]; 0 is the evaluation transform.
        label: int32 [rows], index into `classes`.
        keys: Keys of the photos.
        classes: Names of the classes that occur in this shard, sorted.
        embedder: Computed them.
        shard: SHA-256 of the shard.
        split: Split of the shard.
    """

    embeddings: NDArray[np.float16]
    photo: NDArray[np.int32]
    view: NDArray[np.int32]
    label: NDArray[np.int32]
    keys: tuple[str, ...]
    classes: tuple[str, ...]
    embedder: Embedder
    shard: str
    split: Split

    def __post_init__(self) -> None:
        rows = len(self.embeddings)
        if self.embeddings.ndim != 2 or any(
            len(column) != rows for column in (self.photo, self.view, self.label)
        ):
            raise ValueError(
                f"{rows} embeddings of {self.embeddings.ndim} dimensions do not match their columns"
            )
        if rows and (self.photo.max() >= len(self.keys) or self.label.max() >= len(self.classes)):
            raise ValueError("a row points beyond the keys or the classes")

    @property
    def dim(self) -> int:
        """Numbers per embedding."""
        return int(self.embeddings.shape[1])


def file_name(shard: str) -> str:
    """Name of the embeddings file of a shard, given the shard's SHA-256."""
    return f"{shard}.safetensors"


def write_embeddings(path: Path, batch: Embeddings) -> None:
    """Write one file; it appears under its name only when it is complete and on disk."""
    tensors = {
        "embeddings": np.ascontiguousarray(batch.embeddings, np.float16),
        "photo": np.ascontiguousarray(batch.photo, np.int32),
        "view": np.ascontiguousarray(batch.view, np.int32),
        "label": np.ascontiguousarray(batch.label, np.int32),
    }
    metadata = {
        "schema_version": str(SCHEMA_VERSION),
        "keys": json.dumps(batch.keys),
        "classes": json.dumps(batch.classes, ensure_ascii=False),
        "embedder": json.dumps({**batch.embedder.to_dict(), "dim": batch.dim}, sort_keys=True),
        "shard": batch.shard,
        "split": batch.split.value,
    }
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".embeddings-", delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(save(tensors, metadata))
            file.flush()
            os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def read_embeddings(path: Path) -> Embeddings:
    """Read one file.

    Raises:
        EmbeddingsError: It is damaged, or written by a newer release.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            _check_version(path, metadata)
            return Embeddings(
                embeddings=file.get_tensor("embeddings"),
                photo=file.get_tensor("photo"),
                view=file.get_tensor("view"),
                label=file.get_tensor("label"),
                keys=tuple(json.loads(metadata["keys"])),
                classes=tuple(json.loads(metadata["classes"])),
                embedder=Embedder.from_dict(json.loads(metadata["embedder"])),
                shard=metadata["shard"],
                split=Split(metadata["split"]),
            )
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        if isinstance(error, EmbeddingsError):
            raise
        raise EmbeddingsError(
            f"{path} is not a readable embeddings file: {error}; delete it and embed again"
        ) from error


def _check_version(path: Path, metadata: dict[str, str]) -> None:
    version = int(metadata.get("schema_version", 0))
    if version > SCHEMA_VERSION:
        raise EmbeddingsError(
            f"{path} has schema_version {version}, this release reads up to {SCHEMA_VERSION}; "
            "update ml-pipeline"
        )


def embeddings_in(folder: Path) -> list[Path]:
    """Return the embeddings files of a channel folder and its sub-folders, in the order of their names."""
    return sorted(path for path in folder.rglob("*.safetensors") if not path.name.startswith("."))


def read_folder(folder: Path) -> list[Embeddings]:
    """Read all embeddings of a channel folder, which must come from one embedder.

    Raises:
        EmbeddingsError: There are none, or they do not belong together.
    """
    batches = [read_embeddings(path) for path in embeddings_in(folder)]
    if not batches:
        raise EmbeddingsError(f"no .safetensors file in {folder}; run model_code.embed first")
    ids = {batch.embedder.id for batch in batches}
    if len(ids) > 1:
        raise EmbeddingsError(
            f"{folder} mixes the embeddings of {len(ids)} embedders: {', '.join(sorted(ids))}"
        )
    return batches
