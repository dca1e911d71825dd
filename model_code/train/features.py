"""The embeddings of a split in memory, ready to be drawn from in batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model_code.embed.embeddings import Embeddings, EmbeddingsError, read_folder


@dataclass(frozen=True, eq=False)
class Features:
    """Photos with one or more embeddings (views) each, in float16 as stored.

    Args:
        rows: Embeddings, [rows, dim], a photo's views next to each other, the evaluation view first.
        first: A photo's first row, [photos].
        views: A photo's number of rows, [photos].
        labels: Classes, [photos].
        keys: The photos' keys.
    """

    rows: Tensor
    first: Tensor
    views: Tensor
    labels: Tensor
    keys: tuple[str, ...]

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
        )

    def evaluation(self) -> Tensor:
        """Return each photo's evaluation view, float32 [photos, dim]."""
        return self.rows[self.first].float()

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


def read(folder: Path, classes: Sequence[str]) -> Features:
    """Return the features of a channel folder; see `collect`."""
    return collect(read_folder(folder), classes)


def join(left: Features, right: Features) -> Features:
    """Concatenate two sets of photos."""
    return Features(
        rows=torch.cat([left.rows, right.rows]),
        first=torch.cat([left.first, right.first + len(left.rows)]),
        views=torch.cat([left.views, right.views]),
        labels=torch.cat([left.labels, right.labels]),
        keys=left.keys + right.keys,
    )
