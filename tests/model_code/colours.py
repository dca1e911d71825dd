"""A real, small classifier of the colour photos in `toys`, and its bundle: exported once, used by many tests."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from model_code.data.shards import Split, read_shard
from model_code.data.transform import Transform
from model_code.export.assemble import export_bundle
from model_code.networks.backbone import Backbone, Classifier, attach_head, build_backbone
from model_code.process.code_version import code_version
from tests.model_code import toys

ARCHITECTURE = "squeezenet1_1"
TRANSFORM = Transform(64, 64)


def batch(shard: Path, transform: Transform = TRANSFORM) -> tuple[torch.Tensor, np.ndarray]:
    """The photos of a shard, normalised, and their classes."""
    samples = list(read_shard(shard))
    labels = np.array([toys.CLASSES.index(sample.label) for sample in samples])
    return torch.from_numpy(np.stack([transform(sample.data) for sample in samples])), labels


def centroid_head(
    backbone: Backbone,
    shard: Path,
    hidden: bool = False,
    sharpness: float = 8.0,
    transform: Transform = TRANSFORM,
) -> nn.Module:
    """The head that answers with the nearest class centre: a linear function of the embedding."""
    photos, labels = batch(shard, transform)
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
    """The arguments that training hands to `export_bundle`."""
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


def shards(folder: Path, per_class: tuple[int, int, int] = (12, 20, 16)) -> dict[Split, Path]:
    """A shard per split, of different photos."""
    return {
        split: toys.shard(folder / split, split, count, first=first)
        for split, count, first in zip(Split, per_class, (0, 100, 200), strict=True)
    }


def export(
    folder: Path, architecture: str = ARCHITECTURE, transform: Transform = TRANSFORM, **photos: Any
) -> Colours:
    """Make everything in `folder`; `photos` as for `shards`."""
    made = shards(folder / "shards", **photos)
    backbone = build_backbone(architecture).eval()

    def classifier(sharpness: float) -> Classifier:
        head = centroid_head(backbone, made[Split.TRAIN], sharpness=sharpness, transform=transform)
        return attach_head(backbone, head)

    model = classifier(8.0)
    export_bundle(
        output=folder / "model",
        model=model,
        reference_model=classifier(7.0),  # it saw fewer photos, as in training
        card=card(architecture=architecture, transform=transform),
        calibration_shards=[made[Split.TRAIN]],
        valid_shards=[made[Split.VALID]],
    )
    return Colours(folder / "model", model.eval(), made)
