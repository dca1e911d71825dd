"""`train --strategy finetune`: shards in, a network with its last blocks (or all) trained on photos out."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

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
from model_code.train.finetune.start import Origin, Start
from model_code.train.finetune.task import FinetuneTask, Network, PhotoSource
from model_code.train.job import Job, Judged, Refit, Refitted
from model_code.train.loop import Fit, run
from model_code.train.mixing import balanced_weights

_VALID_BATCH: Final = 64


def prepare(job: Job) -> tuple[Judged, Refit]:
    """Fine-tune on the training shards; the returned call refits on training and validation shards."""
    train = index_shards((job.folders.train,), job.manifest.classes)
    valid = index_shards((job.folders.valid,), job.manifest.classes)
    tuning = FineTuning(Start.of(job, train, valid))
    task, fit = tuning.fit("fit", train, valid)
    judged = tuning.judge(task, fit, valid, len(train))

    def refit() -> Refitted:
        both = index_shards((job.folders.train, job.folders.valid), job.manifest.classes)
        print(f"refitting on {len(both)} photos for {fit.epochs} epochs", flush=True)
        refitted, _ = tuning.fit("refit", both, None, fit.epochs)
        weights = tuning.start.origin.weights
        return Refitted(
            model=_whole(refitted.network),
            reference=_whole(task.network),
            transform=tuning.start.origin.transform,
            embedder_id=None,
            weights_sha256=weights.sha256 if weights else None,
        )

    return judged, refit


def data_identity(job: Job) -> tuple[str, ...]:
    """Name the weights, the training photos and the validation photos. See `train.run.data_identity`."""
    train, valid = (
        index_shards((folder,), job.manifest.classes) for folder in (job.folders.train, job.folders.valid)
    )
    return str(Origin.of(job).id[1]), train.digest(), valid.digest()


@dataclass(frozen=True)
class FineTuning:
    """Fits networks from one start and judges them. Every method is collective."""

    start: Start

    def fit(
        self, stage: str, train: PhotoIndex, valid: PhotoIndex | None, stop_after: int | None = None
    ) -> tuple[FinetuneTask, Fit]:
        """Fine-tune a fresh copy of the start.

        Args:
            stage: Names the fit among the checkpoints of this job.
            train: The photos to train on.
            valid: The photos that choose the epoch; None keeps the last.
            stop_after: Epochs to run on the schedule of all; None runs all.

        Returns:
            The task, its network holding the weights kept, and the fit.
        """
        start, job, recipe = self.start, self.start.job, self.start.recipe
        transform = start.origin.transform
        plan = Plan(train, recipe.batch_size, recipe.seed, job.world)
        photos = Photos(train, transform, recipe.augmentation, recipe.seed)
        stream = TrainingStream(photos, plan, stop_after or recipe.epochs, start.decoders, start.on_gpu)
        source = PhotoSource(
            steps=plan.steps,
            batch=stream.batch,
            batch_photos=plan.batch_photos,
            replicated=plan.replicated,
            valid=None if valid is None else lambda: self._stream(valid),
        )
        labels = [train.labels] if plan.replicated else job.world.gather(train.labels)
        weights = balanced_weights(
            torch.from_numpy(np.concatenate(labels)), job.classes, recipe.class_weighting
        )
        task = FinetuneTask(recipe, start.network(), transform, source, weights, job.world)
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

    def judge(self, task: FinetuneTask, fit: Fit, valid: PhotoIndex, photos: int) -> Judged:
        """The kept network's logits of all validation photos, on every rank."""
        judged = [(logits.cpu(), labels.cpu()) for logits, labels in task.judge(self._stream(valid))]
        gathered = [part for parts in self.start.job.world.gather(judged) for part in parts]
        logits: Tensor = torch.cat([logits for logits, _ in gathered])
        labels: Tensor = torch.cat([labels for _, labels in gathered])
        return Judged(fit, logits, labels, photos)

    def _stream(self, photos: PhotoIndex) -> Iterator[Batch]:
        """This rank's part of `photos`, each once, without augmentation."""
        start = self.start
        mine = Plan(photos, len(photos), 0, start.job.world).share()
        unvaried = Photos(photos, start.origin.transform)
        return stream_once(unvaried, mine, _VALID_BATCH, start.decoders, start.on_gpu)


def _whole(network: Network) -> torch.nn.Module:
    network = copy.deepcopy(network).cpu().eval().requires_grad_(False)
    return attach_head(network.backbone, network.head.folded()).eval()
