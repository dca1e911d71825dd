"""`train --strategy finetune`: shards in, a network with its last blocks (or all) trained on photos out."""

import copy
from collections.abc import Iterator
from functools import partial
from typing import Final

import numpy as np
import torch
from torch import Tensor

from model_code.embed.embeddings import NO_WEIGHTS
from model_code.networks.backbone import attach_head
from model_code.train.checkpoints import fingerprint
from model_code.train.finetune.loader import (
    Batch,
    PhotoIndex,
    Photos,
    Plan,
    TrainingStream,
    index_shards,
    stream_once,
)
from model_code.train.finetune.start import _on_gpu, _Start, _start, _weights
from model_code.train.finetune.task import FinetuneTask, Network, PhotoSource
from model_code.train.job import Job, Judged, Refit, Refitted
from model_code.train.loop import Fit, run
from model_code.train.mixing import balanced_weights

_VALID_BATCH: Final = 64


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
