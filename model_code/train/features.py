"""The embeddings of a split in memory, ready to be drawn from in batches."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model_code.data.shards import Split
from model_code.embed.embeddings import Embedder, Embeddings, EmbeddingsError, read_folder
from model_code.networks.classes import ClassRows, assign_rows, pretrained_rows
from model_code.networks.weights import Weights


@dataclass(frozen=True, eq=False)
class Features:
    """Photos with one or more embeddings (views) each, in float16 as stored.

    Args:
        rows: Embeddings, [rows, dim], a photo's views next to each other, the evaluation view first.
        first: A photo's first row, [photos].
        views: A photo's number of rows, [photos].
        labels: Classes, [photos].
        keys: The photos' keys.
        taught: What a teacher answers, logits [photos, classes]; None without a teacher.
    """

    rows: Tensor
    first: Tensor
    views: Tensor
    labels: Tensor
    keys: tuple[str, ...]
    taught: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def dim(self) -> int:
        """Numbers per embedding."""
        return int(self.rows.shape[1])

    def to(self, device: torch.device) -> "Features":
        """Return a copy on `device`; itself where it is there already."""
        if self.rows.device == device:
            return self
        return Features(
            self.rows.to(device),
            self.first.to(device),
            self.views.to(device),
            self.labels.to(device),
            self.keys,
            self.taught,
        )

    def evaluation(self) -> Tensor:
        """Return each photo's evaluation view, float32 [photos, dim]."""
        return self.rows[self.first].float()

    def part(self, photos: Tensor) -> "Features":
        """Return the evaluation view of the photos with these numbers."""
        count = len(photos)
        ones = torch.ones(count, dtype=torch.int64)
        keys = tuple(self.keys[number] for number in photos.tolist()) if self.keys else ()
        return Features(self.rows[self.first[photos]], torch.arange(count), ones, self.labels[photos], keys)

    def spread(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each dimension over all rows, [dim] each; a constant's is 1."""
        total = torch.zeros(self.dim, dtype=torch.float64, device=self.rows.device)
        squares = torch.zeros_like(total)
        for chunk in torch.split(self.rows, 4096):
            wide = chunk.double()
            total += wide.sum(0)
            squares += wide.square().sum(0)
        mean = total / len(self.rows)
        deviation = (squares / len(self.rows) - mean.square()).clamp(min=0).sqrt()
        # Activations that rarely fire would otherwise be amplified into noise.
        floor = 1e-2 * deviation.square().mean().sqrt()
        deviation = torch.where(deviation > 0, deviation.clamp(min=float(floor)), 1.0)
        return mean.float(), deviation.float()


def collect(batches: Sequence[Embeddings], classes: Sequence[str]) -> Features:
    """Return the photos of several embeddings files, with labels as indices into `classes`.

    Photos are sorted by key, so the order does not depend on how they were distributed over shards.

    Raises:
        EmbeddingsError: A class that is not one of `classes`, or files of different width.
    """
    index = {name: number for number, name in enumerate(classes)}
    if unknown := sorted({name for batch in batches for name in batch.classes} - set(index)):
        raise EmbeddingsError(
            f"embeddings of classes that the manifest does not list: {', '.join(unknown[:5])}"
        )
    keys = np.concatenate([np.asarray(batch.keys, dtype=object)[batch.photo] for batch in batches])
    labels = np.concatenate(
        [np.asarray([index[name] for name in b.classes], np.int64)[b.label] for b in batches]
    )
    view = np.concatenate([batch.view for batch in batches])
    order = np.lexsort((view, keys.astype("U20")))
    unique, first, counts = np.unique(keys[order].astype("U20"), return_index=True, return_counts=True)
    return Features(
        rows=torch.from_numpy(np.concatenate([batch.embeddings for batch in batches])[order]),
        first=torch.from_numpy(first),
        views=torch.from_numpy(counts),
        labels=torch.from_numpy(labels[order][first]),
        keys=tuple(unique.tolist()),
    )


@lru_cache(maxsize=4)
def read_features(folder: Path, classes: tuple[str, ...], split: Split) -> tuple[Features, Embedder]:
    """Return the features of a channel and their embedder.

    Cached, because all trials of a packed search read the same files.

    Raises:
        EmbeddingsError: No files, photos of another split, or files of different embedders.
    """
    batches = read_folder(folder)
    if others := sorted({batch.split for batch in batches} - {split}):
        raise EmbeddingsError(
            f"{folder} holds photos of the {others[0]} split; give --{split} embeddings of the {split} split"
        )
    return collect(batches, classes), batches[0].embedder


@lru_cache(maxsize=4)
def class_rows(weights: Weights, train: Features, classes: int) -> ClassRows | None:
    """Mix the pretrained classifier's rows for the classes of `train`; None where the weights bring no rows.

    Cached, because all trials of a packed search start from the same rows.
    """
    pretrained = pretrained_rows(weights.path, train.dim)
    if pretrained is None:
        return None
    return assign_rows(pretrained, train.evaluation(), train.labels, classes)


def digest(features: Features) -> str:
    """Identifies the photos and labels, so that a checkpoint is never resumed on other data."""
    names = hashlib.sha256("\n".join(features.keys).encode())
    names.update(features.labels.numpy().tobytes())
    names.update(features.views.numpy().tobytes())
    return names.hexdigest()[:16]


def join(left: Features, right: Features) -> Features:
    """Concatenate two sets of photos."""
    return Features(
        rows=torch.cat([left.rows, right.rows]),
        first=torch.cat([left.first, right.first + len(left.rows)]),
        views=torch.cat([left.views, right.views]),
        labels=torch.cat([left.labels, right.labels]),
        keys=left.keys + right.keys,
    )
