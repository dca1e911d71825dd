"""A real, small classifier of the colour photos in `toys`, and its bundle: exported once, used by many tests."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

from model_code import guard
from model_code.architectures import Backbone, Classifier, attach_head, build_backbone
from model_code.code_version import code_version
from model_code.export import export_bundle
from model_code.shards import Split, read_shard
from model_code.transform import Transform
from tests.model_code import toys

ARCHITECTURE = "squeezenet1_1"
TRANSFORM = Transform(64, 64)


def batch(shard: Path) -> tuple[torch.Tensor, np.ndarray]:
    """The photos of a shard, normalised, and their classes."""
    samples = list(read_shard(shard))
    labels = np.array([toys.CLASSES.index(sample.label) for sample in samples])
    return torch.from_numpy(np.stack([TRANSFORM(sample.data) for sample in samples])), labels


def centroid_head(backbone: Backbone, shard: Path, hidden: bool = False, sharpness: float = 8.0) -> nn.Module:
    """The head that answers with the nearest class centre: a linear function of the embedding."""
    photos, labels = batch(shard)
    with torch.no_grad():
        features = backbone(photos)
    centres = torch.stack([features[labels == number].mean(0) for number in range(len(toys.CLASSES))])
    scale = sharpness / (centres - centres.mean(0)).square().sum(1).mean()
    linear = nn.Linear(backbone.dim, len(toys.CLASSES))
    linear.weight.data = scale * centres
    linear.bias.data = -scale * centres.square().sum(1) / 2
    if not hidden:
        return linear
    identity = nn.Linear(
        backbone.dim, backbone.dim
    )  # embeddings after ReLU are not negative: it changes nothing
    identity.weight.data, identity.bias.data = torch.eye(backbone.dim), torch.zeros(backbone.dim)
    return nn.Sequential(identity, nn.ReLU(), linear)


def card(**changes: Any) -> dict[str, Any]:
    """What training hands to `export_bundle`."""
    history = [
        {"epoch": n, "train_loss": 1 / n, "valid_loss": 1.1 / n, "valid_accuracy": 1 - 0.5 / n}
        for n in (1, 2, 3)
    ]
    return {
        "name": "colours",
        "architecture": ARCHITECTURE,
        "classes": list(toys.CLASSES),
        "transform": TRANSFORM,
        "temperature": 1.3,
        "abstain_threshold": 0.4,
        "metrics": {"valid_accuracy": 0.9, "epoch": 2, "history": history},
        "hyperparameters": {"learning_rate": 0.01},
        "dataset": {"name": "colours", "version": "v1"},
        "embedder_id": "e",
        "weights_sha256": None,
        "code_version": code_version(),
        **changes,
    }


@dataclass(frozen=True)
class Colours:
    """An exported bundle (folder) with the model and the shards behind it."""

    folder: Path
    model: Classifier
    shards: dict[Split, Path]

    def copy(self, to: Path) -> Path:
        """A copy of the bundle that may be spoilt."""
        return Path(shutil.copytree(self.folder, to))


def shards(folder: Path) -> dict[Split, Path]:
    """A shard per split, of different photos."""
    return {
        split: toys.shard(folder / split, split, count, first=first)
        for split, count, first in ((Split.TRAIN, 12, 0), (Split.VALID, 20, 100), (Split.TEST, 16, 200))
    }


def export(folder: Path) -> Colours:
    """Make everything in `folder`."""
    made = shards(folder / "shards")
    backbone = build_backbone(ARCHITECTURE)
    model = attach_head(backbone, centroid_head(backbone, made[Split.TRAIN]))
    # The reference saw fewer photos, as in training.
    reference = attach_head(backbone, centroid_head(backbone, made[Split.TRAIN], sharpness=7.0))
    # A network this small gains little from int8 on some processors; the bundle shall have it on all.
    with mock.patch.object(guard, "speed_up", return_value=2.0):
        export_bundle(
            output=folder / "model",
            model=model,
            reference_model=reference,
            card=card(),
            calibration_shards=[made[Split.TRAIN]],
            valid_shards=[made[Split.VALID]],
        )
    return Colours(folder / "model", model.eval(), made)
