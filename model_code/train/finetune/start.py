"""The state that fine-tuning starts from: weights and a fitted head."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from model_code.data.transform import Transform, for_architecture
from model_code.embed.embeddings import NO_WEIGHTS
from model_code.embed.forward import best_forward
from model_code.hyperparameters import Strategy, resolve
from model_code.networks.backbone import Backbone, build_backbone
from model_code.networks.head import Head
from model_code.networks.weights import find_weights
from model_code.process.cores import cores
from model_code.process.parallel import ordered_map
from model_code.train.checkpoints import Checkpoints, fingerprint
from model_code.train.distributed import World
from model_code.train.features import Features
from model_code.train.finetune.loader import PhotoIndex, Photos, Plan, decoders_for_gpu
from model_code.train.finetune.task import FinetuneRecipe, Network
from model_code.train.head.task import HeadRecipe, fit_head
from model_code.train.job import Job
from model_code.train.loop import Metrics

# Enough to start from: fine-tuning moves the head anyway, and this bounds the memory of its features.
_HEAD_PHOTOS: Final = 50_000
_WORTH_CONVERTING: Final = 1000


@dataclass(frozen=True)
class _Start:
    """All that a fit and its refit have in common."""

    job: Job
    recipe: FinetuneRecipe
    backbone: Backbone
    head: Head
    transform: Transform
    weights_sha256: str
    workers: int

    def identity(self) -> tuple[Any, ...]:
        """What names a fit, beside its data."""
        return (vars(self.recipe), self.backbone.architecture, self.weights_sha256, self.transform.id)

    def network(self) -> Network:
        """A fresh copy to train."""
        return Network(copy.deepcopy(self.backbone), copy.deepcopy(self.head))


def _weights(job: Job) -> tuple[Path | None, str]:
    """The weights to start from and their SHA-256; None and `NO_WEIGHTS` where there are none."""
    path = find_weights(job.folders.weights)
    return path, NO_WEIGHTS if path is None else hashlib.sha256(path.read_bytes()).hexdigest()


def _start(job: Job, train: PhotoIndex, valid: PhotoIndex) -> _Start:
    recipe = FinetuneRecipe.of(job.values)
    architecture = str(job.values["architecture"])
    path, weights_sha256 = _weights(job)
    backbone = build_backbone(architecture, path)
    transform = for_architecture(architecture)
    head = _starting_head(job, recipe, backbone, transform, path, weights_sha256, train, valid)
    on_gpu = job.world.device.type == "cuda"
    # On a CPU the network takes all cores' time, so one decoder is plenty.
    workers = decoders_for_gpu() if on_gpu else min(1, cores() - 1)
    return _Start(job, recipe, backbone, head, transform, weights_sha256, workers)


def _starting_head(
    job: Job,
    recipe: FinetuneRecipe,
    backbone: Backbone,
    transform: Transform,
    weights: Path | None,
    weights_sha256: str,
    train: PhotoIndex,
    valid: PhotoIndex,
) -> Head:
    """The best head on frozen features: computed once, by all ranks; fitted by rank 0."""
    shared = ("hidden", "dropout", "label_smoothing", "mixup", "class_weighting", "seed")
    values = resolve({"strategy": Strategy.HEAD, **{name: getattr(recipe, name) for name in shared}})
    head_recipe = HeadRecipe.of(values)
    identity = (vars(head_recipe), backbone.architecture, weights_sha256, transform.id)
    checkpoints = job.checkpoints(fingerprint("start", *identity, train.digest(), valid.digest()))
    saved = job.world.from_main(checkpoints.latest() if job.world.is_main else None)
    if saved is None:
        if job.world.is_main:
            print("fitting a head on frozen features first", flush=True)
        train_features, valid_features = (
            _features(job.world, index, backbone.architecture, weights, transform) for index in (train, valid)
        )
        head = None
        if job.world.is_main:
            alone = Checkpoints(None, "")
            head, _ = fit_head(
                head_recipe, train_features, valid_features, job.classes, World(), alone, _silent
            )
        saved = job.world.from_main({"head": head.state_dict()} if head else None)
        checkpoints.save(0, saved)
    head = Head(
        torch.zeros(backbone.dim),
        torch.ones(backbone.dim),
        job.classes,
        hidden=recipe.hidden,
        dropout=recipe.dropout,
    )
    head.load_state_dict(saved["head"])
    return head


def _silent(metrics: Metrics) -> None:
    # Only the fine-tuning's own epochs may be read as the job's metrics.
    del metrics


@lru_cache(maxsize=2)
def _features(
    world: World, index: PhotoIndex, architecture: str, weights: Path | None, transform: Transform
) -> Features:
    """Embeddings of the evaluation view, gathered from all ranks.

    Kept in memory, because the trials of a packed search all start from the same.
    """
    mine = Plan(index, len(index), 0, world).share()[: _HEAD_PHOTOS // world.size]
    # Below so many photos, turning the network into a faster one costs more than it saves.
    few = len(mine) < _WORTH_CONVERTING and world.device.type != "cuda"
    photos = Photos(index, transform)
    threads = torch.get_num_threads()
    backbone = build_backbone(architecture, weights)
    forward = best_forward(backbone, transform, "torch" if few else "auto")

    def embed(numbers: NDArray[np.int64]) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
        if not len(numbers):
            return np.empty((0, backbone.dim), np.float16), np.empty(0, np.int64)
        pixels, labels = photos.__getitems__([(0, int(number)) for number in numbers])
        return forward(pixels.numpy()).astype(np.float16), labels.numpy()

    try:
        # A rank without photos still has a part: an empty one, of the right width.
        batches = np.array_split(mine, max(1, -(-len(mine) // forward.batch_size)))
        parts = list(ordered_map(embed, batches, forward.callers))
    finally:
        torch.set_num_threads(threads)  # a forward pass of torch takes one thread per call, training all
    gathered = [part for parts_of_rank in world.gather(parts) for part in parts_of_rank]
    rows = torch.from_numpy(np.concatenate([rows for rows, _ in gathered]))
    labels = torch.from_numpy(np.concatenate([labels for _, labels in gathered]))
    count = len(labels)
    return Features(rows, torch.arange(count), torch.ones(count, dtype=torch.int64), labels, ())


def _on_gpu(job: Job) -> bool:
    return job.world.device.type == "cuda"
