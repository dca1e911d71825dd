"""`train --strategy finetune`: shards in, a network with its last blocks (or all) trained on photos out."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from model_code.data.shards import Split
from model_code.networks.backbone import attach_head
from model_code.train.checkpoints import fingerprint
from model_code.train.finetune.index import PhotoIndex, index_shards
from model_code.train.finetune.loader import Batch, Photos, Plan, TrainingStream, stream_once
from model_code.train.finetune.start import Origin, Start
from model_code.train.finetune.task import FinetuneTask, Network, PhotoSource
from model_code.train.head.teacher import Teacher
from model_code.train.job import Job, Judged, Refit, Refitted
from model_code.train.loop import Fit, run
from model_code.train.mixing import balanced_weights

_VALID_BATCH: Final = 64
_SHARES: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Points on the way from the head on the frozen backbone to the fine-tuned network that validation chooses from."""


def prepare(job: Job) -> tuple[Judged, Refit]:
    """Fine-tune on the training shards; the returned call refits on training and validation shards."""
    train, valid = _index(job, Split.TRAIN), _index(job, Split.VALID)
    tuning = FineTuning(Start.of(job, train, valid), Teacher.of(job))
    task, fit = tuning.fit("fit", train, valid)
    share, judged = tuning.settle(task, fit, valid, len(train))

    def refit() -> Refitted:
        weights = tuning.start.origin.weights
        return Refitted(
            model=_whole(refitted_network()),
            reference=_whole(task.network),
            transform=tuning.start.origin.transform,
            embedder_id=None,
            weights_sha256=weights.sha256 if weights else None,
        )

    def refitted_network() -> Network:
        if not share:
            print("refitting the head on training and validation photos", flush=True)
            return tuning.start.refitted(train, valid)
        both = _index(job, Split.TRAIN, Split.VALID)
        print(f"refitting on {len(both)} photos for {fit.epochs} epochs", flush=True)
        refitted, again = tuning.fit("refit", both, None, fit.epochs)
        refitted.move(again.weights, share)
        return refitted.network

    return judged, refit


def data_identity(job: Job) -> tuple[str, ...]:
    """Return weights, training photos, validation photos and teacher. See `train.run.data_identity`."""
    train, valid = _index(job, Split.TRAIN), _index(job, Split.VALID)
    return str(Origin.of(job).id[1]), train.digest(), valid.digest(), *Teacher.identity(job)


@dataclass(frozen=True)
class FineTuning:
    """Fits networks from one start, with or without a teacher, and judges them. Every method is collective."""

    start: Start
    teacher: Teacher | None = None

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
            taught=self._taught(plan, train, valid is None),
        )
        labels = [train.labels] if plan.replicated else job.world.gather(train.labels)
        weights = balanced_weights(
            torch.from_numpy(np.concatenate(labels)), job.classes, recipe.class_weighting
        )
        task = FinetuneTask(recipe, start.network(), transform, source, weights, job.world)
        digests = (
            train.digest(),
            valid.digest() if valid else None,
            stop_after,
            *Teacher.identity(job),
        )
        fit = run(
            task,
            task.schedule(stop_after),
            job.checkpoints(fingerprint(stage, *start.identity(), *job.world.gather(digests)[0])),
            job.world,
            job.reporter(stop_after or recipe.epochs),
        )
        stream.close()
        task.settle(fit.weights)
        return task, fit

    def _taught(self, plan: Plan, train: PhotoIndex, both: bool) -> Callable[[int, int], Tensor] | None:
        """Return what the teacher answers about the photos of a batch; None without a teacher."""
        if self.teacher is None or not self.start.recipe.distillation:
            return None
        answers = self.teacher.answers(train.keys, valid=both)
        return lambda epoch, step: answers[torch.from_numpy(plan.batch(epoch, step))]

    def settle(self, task: FinetuneTask, fit: Fit, valid: PhotoIndex, photos: int) -> tuple[float, Judged]:
        """Choose on the validation photos how far to move from the head on the frozen backbone to the fit.

        The head is kept unless a point on the way is right on more photos by at least one standard error of the
        difference (paired: only photos that one of the two gets right count), so luck on a few photos does not
        replace it.

        Returns:
            The share of the way, 0 for the head, and the network there, judged.
        """
        candidates = []
        for share in _SHARES:
            task.move(fit.weights, share)
            candidates.append((share, *self._logits(task, valid)))
        share, logits, labels = choose(candidates)
        task.move(fit.weights, share)
        loss = float(functional.cross_entropy(logits.double(), labels))
        accuracy = float((logits.argmax(1) == labels).double().mean())
        if self.start.job.world.is_main:
            tuned = fit.metrics["valid_accuracy"]
            print(
                f"kept {share:.0%} of the fine-tuning: validation accuracy {accuracy:.4f}, {tuned:.4f} with all of it"
                if share
                else f"fine-tuning did not beat the head (validation accuracy {tuned:.4f} against {accuracy:.4f}, "
                "within a standard error): keeping the head",
                flush=True,
            )
        metrics = {**fit.metrics, "valid_accuracy": accuracy, "valid_loss": loss}
        return share, Judged(replace(fit, metrics=metrics), logits, labels, photos)

    def _logits(self, task: FinetuneTask, valid: PhotoIndex) -> tuple[Tensor, Tensor]:
        """Logits and labels of all validation photos, on every rank."""
        judged = [(logits.cpu(), labels.cpu()) for logits, labels in task.judge(self._stream(valid))]
        gathered = [part for parts in self.start.job.world.gather(judged) for part in parts]
        logits: Tensor = torch.cat([logits for logits, _ in gathered])
        labels: Tensor = torch.cat([labels for _, labels in gathered])
        return logits, labels

    def _stream(self, photos: PhotoIndex) -> Iterator[Batch]:
        """This rank's part of `photos`, each once, without augmentation."""
        start = self.start
        mine = Plan(photos, len(photos), 0, start.job.world).share()
        unvaried = Photos(photos, start.origin.transform)
        return stream_once(unvaried, mine, _VALID_BATCH, start.decoders, start.on_gpu)


def choose(candidates: Sequence[tuple[float, Tensor, Tensor]]) -> tuple[float, Tensor, Tensor]:
    """Pick the best of several networks, the first unless another is better by a standard error.

    Args:
        candidates: A name, logits [photos, classes] and labels [photos] of each, the same photos for all.
    """
    first = candidates[0]
    own = first[1].argmax(1) == first[2]

    def merit(candidate: tuple[float, Tensor, Tensor]) -> tuple[float, float]:
        _, logits, labels = candidate
        loss = functional.cross_entropy(logits.double(), labels)
        return float((logits.argmax(1) == labels).sum()), -float(loss)

    best = max(candidates, key=merit)
    right = best[1].argmax(1) == best[2]
    gained, lost = int((right & ~own).sum()), int((own & ~right).sum())
    return best if gained - lost > 0 and (gained - lost) ** 2 >= gained + lost else first


def _index(job: Job, *splits: Split) -> PhotoIndex:
    folders = {Split.TRAIN: job.folders.train, Split.VALID: job.folders.valid}
    return index_shards(
        tuple(folders[split] for split in splits),
        job.manifest.classes,
        job.folders.staging,
        tuple(job.named(split) for split in splits),
    )


def _whole(network: Network) -> torch.nn.Module:
    network = copy.deepcopy(network).cpu().eval().requires_grad_(False)
    return attach_head(network.backbone, network.head.folded()).eval()
