"""A teacher: a head on a bigger network's embeddings, whose answers join the loss of the network that serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Final, Self

import torch
from torch import Tensor

from model_code.data.shards import Split
from model_code.embed.embeddings import EmbeddingsError
from model_code.hyperparameters import FOLDS, WITHOUT_PRIOR, Strategy, resolve
from model_code.networks.classes import ClassRows
from model_code.networks.weights import find_weights
from model_code.predict.calibration import fit_temperature
from model_code.train.checkpoints import Checkpoints
from model_code.train.distributed import World
from model_code.train.features import Features, class_rows, digest, join, read_features
from model_code.train.head.task import HeadRecipe, fit_head
from model_code.train.job import Job

_ONE_AT_A_TIME: Final = Lock()


@dataclass(frozen=True, eq=False)
class Teacher:
    """The embeddings of a teacher's backbone.

    Args:
        train: Training photos.
        valid: Validation photos.
        rows: The classifier that its weights bring along, if any.
        job: The job that learns from it.
    """

    train: Features
    valid: Features
    rows: ClassRows | None
    job: Job

    @classmethod
    def of(cls, job: Job) -> Self | None:
        """Return the teacher of a job; None where it has none.

        Raises:
            EmbeddingsError: A channel is missing, or they do not belong together.
        """
        folders = job.folders
        if folders.teacher_train is None or folders.teacher_valid is None:
            if folders.teacher_train is not folders.teacher_valid:
                raise EmbeddingsError("a teacher needs both --teacher_train and --teacher_valid")
            return None
        train, embedder = read_features(folders.teacher_train, job.manifest.classes, Split.TRAIN)
        valid, other = read_features(folders.teacher_valid, job.manifest.classes, Split.VALID)
        weights = find_weights(folders.teacher_weights)
        if other.id != embedder.id or (weights and weights.sha256 != embedder.weights_sha256):
            raise EmbeddingsError(
                "the teacher's channels do not belong together; embed train and valid with the weights given"
            )
        rows = class_rows(weights, train, job.classes) if weights else None
        return cls(train, valid, rows, job)

    @classmethod
    def identity(cls, job: Job) -> tuple[str, ...]:
        """Name the teacher of a job among those of other jobs; nothing where it has none."""
        teacher = cls.of(job)
        if teacher is None:
            return ()
        given = "rows" if teacher.rows else "no rows"
        return digest(teacher.train), digest(teacher.valid), given

    def answers(self, keys: Sequence[str], valid: bool = False) -> Tensor:
        """Return logits [photos, classes] of the photos with these keys, by heads that never saw them; collective.

        Args:
            keys: Keys of the photos.
            valid: Whether validation photos are among them; the heads are then fitted on those, too.

        Raises:
            EmbeddingsError: The teacher lacks a photo.
        """
        joined = self.valid if valid else None
        known = self.train.keys + (self.valid.keys if valid else ())
        place = {key: number for number, key in enumerate(known)}
        if missing := [key for key in keys if key not in place]:
            raise EmbeddingsError(f"the teacher lacks {len(missing)} photos, first {missing[0]}; embed again")
        world, logits = self.job.world, None
        if world.is_main:
            with _ONE_AT_A_TIME:  # parallel trials wait for the first one's
                logits = _crossed(self.train, joined, self.rows, self.job.classes)
        answers: Tensor = world.from_main(logits)
        return answers[torch.tensor([place[key] for key in keys])]


@lru_cache(maxsize=2)
def _crossed(train: Features, valid: Features | None, rows: ClassRows | None, classes: int) -> Tensor:
    """Return the logits of all photos, each by a head that was fitted on the other folds; cached for parallel trials.

    Args:
        train: Training photos.
        valid: Photos that join them, or None.
        rows: The prior of the heads, if any.
        classes: Number of classes.
    """
    known = train if valid is None else join(train, valid)
    recipe = HeadRecipe.of(resolve({"strategy": Strategy.HEAD, **({} if rows else WITHOUT_PRIOR)}))
    print(f"asking the teacher about {len(known)} photos", flush=True)
    logits = torch.zeros(len(known), classes)
    fold = torch.arange(len(known)) % FOLDS
    for number in range(FOLDS):
        others, own = ((fold != number).nonzero()[:, 0], (fold == number).nonzero()[:, 0])
        fitted, _ = fit_head(
            recipe,
            known.part(others),
            None,
            classes,
            World(),
            Checkpoints(None, ""),
            lambda _: None,
            rows=rows,
        )
        with torch.no_grad():
            logits[own] = fitted(known.part(own).rows.float())
    hits = float((logits.argmax(1) == known.labels).double().mean())
    # A head that was fitted on mixed photos and smoothed labels is less sure than it may be.
    temperature = fit_temperature(logits.numpy(), known.labels.numpy())
    print(f"the teacher is right on {hits:.4f} of them, temperature {temperature:.2f}", flush=True)
    return logits / temperature
