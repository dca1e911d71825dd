"""The state that fine-tuning starts from: weights, and the best head on the frozen backbone."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray

from model_code.data.transform import Transform, for_architecture
from model_code.embed.forward import best_forward
from model_code.hyperparameters import Strategy, resolve
from model_code.networks.backbone import Backbone, build_backbone
from model_code.networks.head import Head
from model_code.networks.weights import Weights, find_weights
from model_code.process.cores import cores
from model_code.process.parallel import ordered_map
from model_code.train.checkpoints import Checkpoints, fingerprint
from model_code.train.distributed import World
from model_code.train.features import Features, class_rows, join
from model_code.train.finetune.index import PhotoIndex
from model_code.train.finetune.loader import Photos, Plan, decoders_for_gpu
from model_code.train.finetune.staging import follow
from model_code.train.finetune.task import FinetuneRecipe, Network
from model_code.train.head.task import HeadRecipe, fit_head
from model_code.train.job import Job
from model_code.train.loop import Metrics

# Enough for a starting point, since fine-tuning moves the head anyway; it bounds the memory of the features.
_HEAD_PHOTOS: Final = 50_000
_WORTH_CONVERTING: Final = 1000


@dataclass(frozen=True)
class Origin:
    """The frozen network that a fine-tuning starts from.

    Args:
        architecture: Its name.
        weights: Its pretrained weights, or None for an untrained network.
        transform: Turns photos into its input.
    """

    architecture: str
    weights: Weights | None
    transform: Transform

    @classmethod
    def of(cls, job: Job) -> Self:
        """Return the origin that a job names.

        Raises:
            FileNotFoundError: The weights are missing.
        """
        architecture = str(job.values["architecture"])
        return cls(architecture, find_weights(job.folders.weights), for_architecture(architecture))

    @property
    def id(self) -> tuple[str, str | None, str]:
        """Names it in fingerprints, independent of where the weights are stored."""
        return self.architecture, self.weights.sha256 if self.weights else None, self.transform.id

    def backbone(self) -> Backbone:
        """Return a fresh copy of the backbone, in eval mode."""
        return build_backbone(self.architecture, self.weights.path if self.weights else None)


@dataclass(frozen=True)
class Start:
    """The state that a fit and its refit share.

    Args:
        job: The job.
        recipe: Its hyperparameters.
        origin: The frozen network.
        backbone: Its backbone.
        head: The best head on it.
        head_epochs: Epochs that the head was trained for.
    """

    job: Job
    recipe: FinetuneRecipe
    origin: Origin
    backbone: Backbone
    head: Head
    head_epochs: int

    @classmethod
    def of(cls, job: Job, train: PhotoIndex, valid: PhotoIndex) -> Self:
        """Load the weights and fit the head; collective."""
        recipe, origin = FinetuneRecipe.of(job.values), Origin.of(job)
        backbone = origin.backbone()
        head, epochs = _fit_head(job, recipe, origin, backbone.dim, train, valid)
        return cls(job, recipe, origin, backbone, head, epochs)

    @property
    def on_gpu(self) -> bool:
        """True if the network is trained on a GPU."""
        return self.job.world.device.type == "cuda"

    @property
    def decoders(self) -> int:
        """Processes that decode photos. On a CPU the network takes all cores' time, so one is plenty."""
        return decoders_for_gpu() if self.on_gpu else min(1, cores() - 1)

    def identity(self) -> tuple[Any, ...]:
        """Names a fit, apart from its data."""
        return (vars(self.recipe), *self.origin.id)

    def network(self) -> Network:
        """Return a fresh copy to train."""
        return Network(copy.deepcopy(self.backbone), copy.deepcopy(self.head))

    def refitted(self, train: PhotoIndex, valid: PhotoIndex) -> Network:
        """Return the frozen network with a head refitted on training and validation photos; collective."""
        head, _ = _fit_head(
            self.job, self.recipe, self.origin, self.backbone.dim, train, valid, self.head_epochs
        )
        return Network(copy.deepcopy(self.backbone), head)


def _fit_head(
    job: Job,
    recipe: FinetuneRecipe,
    origin: Origin,
    dim: int,
    train: PhotoIndex,
    valid: PhotoIndex,
    refit: int | None = None,
) -> tuple[Head, int]:
    """Fit the best head on frozen features: all ranks compute the features once, rank 0 fits.

    Args:
        job: The job.
        recipe: Of the fine-tuning; the head shares what concerns both.
        origin: The frozen network.
        dim: Numbers per embedding.
        train: Training photos.
        valid: Validation photos.
        refit: Fit on both for this number of epochs; None: on `train`, for as many as `valid` chooses.

    Returns:
        The head, and the epochs that it was trained for.
    """
    shared = ("hidden", "dropout", "label_smoothing", "mixup", "class_weighting", "prior", "seed")
    values = resolve({"strategy": Strategy.HEAD, **{name: getattr(recipe, name) for name in shared}})
    head_recipe = HeadRecipe.of(values)
    identity = (vars(head_recipe), *origin.id, train.digest(), valid.digest(), refit)
    checkpoints = job.checkpoints(fingerprint("start", *identity))
    saved = job.world.from_main(checkpoints.latest() if job.world.is_main else None)
    if saved is None:
        if job.world.is_main and refit is None:
            print("fitting a head on frozen features first", flush=True)
        features, judging = (_features(job.world, index, origin) for index in (train, valid))
        if job.world.is_main:
            rows = None
            if head_recipe.prior and not head_recipe.hidden and origin.weights is not None:
                rows = class_rows(origin.weights, features, job.classes)
            alone = (job.classes, World(), Checkpoints(None, ""), _silent)
            if refit is None:
                fitted, fit = fit_head(head_recipe, features, judging, *alone, rows=rows)
            else:
                fitted, fit = fit_head(head_recipe, join(features, judging), None, *alone, refit, rows)
            saved = {"head": fitted.state_dict(), "epochs": fit.epochs}
        saved = job.world.from_main(saved)
        checkpoints.save(0, saved)
    head = Head(torch.zeros(dim), torch.ones(dim), job.classes, hidden=recipe.hidden, dropout=recipe.dropout)
    head.load_state_dict(saved["head"])
    return head, int(saved["epochs"])


def _silent(metrics: Metrics) -> None:
    # Only epochs of the fine-tuning itself may be parsed as the job's metrics.
    del metrics


@lru_cache(maxsize=2)
def _features(world: World, index: PhotoIndex, origin: Origin) -> Features:
    """Embeddings of the evaluation view, gathered from all ranks.

    Cached, because all trials of a packed search start from the same features.
    """
    mine = Plan(index, len(index), 0, world).share()[: _HEAD_PHOTOS // world.size]
    # For few photos, converting the network to a faster runtime costs more than it saves.
    few = len(mine) < _WORTH_CONVERTING and world.device.type != "cuda"
    photos = Photos(index, origin.transform)
    threads = torch.get_num_threads()
    backbone = origin.backbone()
    forward = best_forward(backbone, origin.transform, "torch" if few else "auto")

    def embed(numbers: NDArray[np.int64]) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
        if not len(numbers):
            return np.empty((0, backbone.dim), np.float16), np.empty(0, np.int64)
        pixels, labels = photos.__getitems__([(0, int(number)) for number in numbers])
        return forward(pixels.numpy()).astype(np.float16), labels.numpy()

    try:
        # A rank without photos contributes an empty part of the right width.
        batches = np.array_split(mine, max(1, -(-len(mine) // forward.batch_size)))
        parts = list(follow(ordered_map(embed, batches, forward.callers), index, [batches]))
    finally:
        torch.set_num_threads(threads)  # a forward pass of torch takes one thread per call, training all
    gathered = [part for parts_of_rank in world.gather(parts) for part in parts_of_rank]
    rows = torch.from_numpy(np.concatenate([rows for rows, _ in gathered]))
    labels = torch.from_numpy(np.concatenate([labels for _, labels in gathered]))
    count = len(labels)
    return Features(rows, torch.arange(count), torch.ones(count, dtype=torch.int64), labels, ())
