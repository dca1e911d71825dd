"""Embeddings and files of the photos of a data set version, put together by key."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_code.data import shards
from model_code.data.shards import Split
from model_code.embed.embeddings import Embedder, read_folder


class CheckError(ValueError):
    """Inputs that do not belong together, or too little of them."""


@dataclass(frozen=True)
class Place:
    """Position of a photo's bytes."""

    shard: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """Return the file as it was uploaded."""
        descriptor = os.open(self.shard, os.O_RDONLY)
        try:
            return os.pread(descriptor, self.size, self.offset)
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class Material:
    """Photos in the order of their keys.

    Attributes:
        rows: float16 [photos, dim], one embedding each: the evaluation view.
        labels: [photos], index into `classes`.
        splits: Split of each photo.
        places: Where each photo's file is; None where its shard is absent.
        paths: Original path of each photo; empty where the data set does not tell.
    """

    keys: tuple[str, ...]
    rows: NDArray[np.float16]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    splits: tuple[Split, ...]
    places: tuple[Place | None, ...]
    paths: tuple[str, ...]
    embedder: Embedder

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, at: int) -> bytes:
        """Return the file of a photo, empty where its shard is absent."""
        place = self.places[at]
        return b"" if place is None else place.read()

    def label(self, at: int) -> str:
        """Return the class name of a photo."""
        return self.classes[self.labels[at]]


def collect(
    embeddings: Path, shard_folder: Path, classes: Sequence[str], paths: Mapping[str, str]
) -> Material:
    """Read both folders.

    Args:
        embeddings: Folder with safetensors files of one embedder.
        shard_folder: Folder with the shards they were made of.
        classes: Class names in order; empty: those of the embeddings, sorted.
        paths: Original paths by key.

    Raises:
        CheckError: A class that `classes` does not list, or fewer than two classes.
        EmbeddingsError: No embeddings, or damaged ones.
        ShardError: A shard is damaged.
    """
    batches = read_folder(embeddings)
    found = sorted({name for batch in batches for name in batch.classes})
    names = tuple(classes) or tuple(found)
    if unknown := sorted(set(found) - set(names)):
        raise CheckError(f"embeddings of classes that the manifest does not list: {', '.join(unknown[:5])}")
    if len(names) < 2:
        raise CheckError(f"there is only the class {names[0]!r}: labels can be checked from two classes on")
    index = {name: number for number, name in enumerate(names)}
    keys: list[str] = []
    labels, splits, rows = [], [], []
    for batch in batches:
        first = np.flatnonzero(batch.view == 0)
        keys += [batch.keys[photo] for photo in batch.photo[first]]
        labels.append(np.array([index[name] for name in batch.classes], np.int64)[batch.label[first]])
        splits += [batch.split] * len(first)
        rows.append(batch.embeddings[first])
    # A photo is in one shard of a version; embeddings of an older version may hold it once more.
    unique, order = np.unique(np.array(keys), return_index=True)
    places = {
        entry.key: Place(path, entry.offset, entry.size)
        for path in shards.shards_in(shard_folder)
        for entry in shards.index_shard(path)
    }
    return Material(
        keys=tuple(unique.tolist()),
        rows=np.concatenate(rows)[order],
        labels=np.concatenate(labels)[order],
        classes=names,
        splits=tuple(splits[at] for at in order),
        places=tuple(places.get(key) for key in unique.tolist()),
        paths=tuple(paths.get(key, "") for key in unique.tolist()),
        embedder=batches[0].embedder,
    )
