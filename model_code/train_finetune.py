"""`train --strategy finetune`: shards in, a network with its last blocks (or all) trained on photos out."""

import copy
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_code.architectures import Backbone, attach_head, build_backbone
from model_code.checkpoints import Checkpoints, fingerprint
from model_code.cores import cores
from model_code.dataset import ordered_map
from model_code.distributed import World
from model_code.embed import find_weights
from model_code.embeddings import NO_WEIGHTS
from model_code.features import Features
from model_code.finetune import FinetuneRecipe, FinetuneTask, Network, PhotoSource
from model_code.fitting import Fit, Metrics, run
from model_code.forward import best_forward
from model_code.head import Head, HeadRecipe, fit_head
from model_code.hyperparameters import Strategy, resolve
from model_code.loader import (
    Batch,
    PhotoIndex,
    Photos,
    Plan,
    TrainingStream,
    decoders_for_gpu,
    index_shards,
    stream_once,
)
from model_code.mixing import balanced_weights
from model_code.train_job import Job, Judged, Refit, Refitted
from model_code.transform import Transform, for_architecture

# Enough to start from: fine-tuning moves the head anyway, and this bounds the memory of its features.
_HEAD_PHOTOS: Final = 50_000
_WORTH_CONVERTING: Final = 1000
_VALID_BATCH: Final = 64


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


def prepare(job: Job) -> tuple[Judged, Refit]:
    """Fine-tune on the training shards; the returned call does it again on training and validation shards."""
    train = index_shards((job.folders.train,), job.manifest.classes)
    valid = index_shards((job.folders.valid,), job.manifest.classes)
    start = _start(job, train, valid)
    task, fit = _fit(start, "fit", train, valid, None)
    judged = _judge(start, task, fit, valid, len(train))

    def refit() -> Refitted:
        both = index_shards((job.folders.train, job.folders.valid), job.manifest.classes)
        print(f"refitting on {len(both)} photos for {fit.epochs} epochs", flush=True)
        refitted, _ = _fit(start, "refit", both, None, fit.epochs)
        return Refitted(
            model=_whole(refitted.network),
            reference=_whole(task.network),
            transform=start.transform,
            embedder_id=None,
            weights_sha256=None if start.weights_sha256 == NO_WEIGHTS else start.weights_sha256,
        )

    return judged, refit


def identity(job: Job) -> tuple[str, ...]:
    """The weights, the training photos and the validation photos. See `train.data_identity`."""
    train, valid = (
        index_shards((folder,), job.manifest.classes) for folder in (job.folders.train, job.folders.valid)
    )
    return _weights(job)[1], train.digest(), valid.digest()


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


def _fit(
    start: _Start, stage: str, train: PhotoIndex, valid: PhotoIndex | None, stop_after: int | None
) -> tuple[FinetuneTask, Fit]:
    job, recipe = start.job, start.recipe
    plan = Plan(train, recipe.batch_size, recipe.seed, job.world)
    photos = Photos(train, start.transform, recipe.augmentation, recipe.seed)
    stream = TrainingStream(photos, plan, stop_after or recipe.epochs, start.workers, _on_gpu(job))
    source = PhotoSource(
        steps=plan.steps,
        batch=stream.batch,
        batch_photos=plan.batch_photos,
        replicated=plan.replicated,
        valid=None if valid is None else partial(_validation, start, valid),
    )
    labels = [train.labels] if plan.replicated else job.world.gather(train.labels)
    weights = balanced_weights(torch.from_numpy(np.concatenate(labels)), job.classes, recipe.class_weighting)
    task = FinetuneTask(recipe, start.network(), start.transform, source, weights, job.world)
    digests = (train.digest(), valid.digest() if valid else None, stop_after)
    fit = run(
        task,
        task.schedule(stop_after),
        job.checkpoints(fingerprint(stage, *start.identity(), *job.world.gather(digests)[0])),
        job.world,
        job.reporter(stop_after or recipe.epochs),
    )
    task.settle(fit.weights)
    return task, fit


def _on_gpu(job: Job) -> bool:
    return job.world.device.type == "cuda"


def _validation(start: _Start, valid: PhotoIndex) -> Iterator[Batch]:
    mine = Plan(valid, len(valid), 0, start.job.world).share()
    return stream_once(Photos(valid, start.transform), mine, _VALID_BATCH, start.workers, _on_gpu(start.job))


def _judge(start: _Start, task: FinetuneTask, fit: Fit, valid: PhotoIndex, photos: int) -> Judged:
    """The kept network's logits of all validation photos, on every rank."""
    judged = [(logits.cpu(), labels.cpu()) for logits, labels in task.judge(_validation(start, valid))]
    gathered = [part for parts in start.job.world.gather(judged) for part in parts]
    logits: Tensor = torch.cat([logits for logits, _ in gathered])
    labels: Tensor = torch.cat([labels for _, labels in gathered])
    return Judged(fit, logits, labels, photos)


def _whole(network: Network) -> torch.nn.Module:
    network = copy.deepcopy(network).cpu().eval().requires_grad_(False)
    return attach_head(network.backbone, network.head.folded()).eval()
