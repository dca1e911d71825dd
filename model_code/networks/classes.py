"""The classifier that pretrained weights bring along: a row per class that they were trained on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from model_code.networks.weights import load_state_dict

_LAST_LAYER: Final = re.compile(r"(fc|head|heads|classifier)(\.\w+)*\.weight")
# Of an average of probabilities: a low power mixes rows of classes that a photo shows only now and then, a high one
# takes the row of the most likely class alone.
_SHARPNESS: Final = 3


@dataclass(frozen=True, eq=False)
class ClassRows:
    """A linear classifier on embeddings.

    Args:
        weight: A row per class, [classes, dim].
        bias: [classes].
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, embeddings: Tensor) -> Tensor:
        """Logits [n, classes] of embeddings [n, dim]."""
        return embeddings @ self.weight.T + self.bias


def pretrained_rows(weights: Path, dim: int) -> ClassRows | None:
    """Return the last linear layer of a weights file.

    Args:
        weights: A state_dict, or safetensors.
        dim: Numbers per embedding, which the rows must have.

    Returns:
        The layer, or None for weights without one, such as those of a backbone alone.

    Raises:
        ArchitectureError: The file holds no weights.
    """
    tensors = load_state_dict(weights)
    found = None
    for name, tensor in tensors.items():
        if not _LAST_LAYER.fullmatch(name) or tensor.ndim not in (2, 4):
            continue
        bias = tensors.get(f"{name.removesuffix('weight')}bias")
        # SqueezeNet classifies by a convolution of 1 x 1.
        if bias is not None and tensor[0].numel() == dim and len(bias) == len(tensor):
            found = ClassRows(tensor.flatten(1).float(), bias.float())
    return found


def assign_rows(pretrained: ClassRows, embeddings: Tensor, labels: Tensor, classes: int) -> ClassRows:
    """Mix the rows of a pretrained classifier into rows for other classes, without training.

    Each class takes the average of the rows, weighted by the mean probability that the pretrained classifier gives
    them on the photos of the class, to the power of 3. A breed that the weights know takes its own row; a class that
    they do not know takes a blend of what resembles it.

    Args:
        pretrained: The classifier of the weights.
        embeddings: Training photos, [n, dim].
        labels: Their classes, [n].
        classes: Number of classes.
    """
    total = torch.zeros(classes, len(pretrained.bias))
    for rows, own in zip(torch.split(embeddings, 4096), torch.split(labels, 4096), strict=True):
        total.index_add_(0, own, torch.softmax(pretrained(rows), 1))
    mean = total / torch.bincount(labels, minlength=classes).clamp(min=1)[:, None]
    shares = (mean + 1e-6).pow(_SHARPNESS)
    shares /= shares.sum(1, keepdim=True)
    return ClassRows(shares @ pretrained.weight, shares @ pretrained.bias)
