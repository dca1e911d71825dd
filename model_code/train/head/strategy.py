"""`train --strategy head`: embeddings in, a fitted head out; the backbone is needed only for export."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from model_code.data.shards import Split
from model_code.embed.embeddings import NO_WEIGHTS, Embedder, EmbeddingsError
from model_code.networks.backbone import attach_head, build_backbone
from model_code.networks.classes import ClassRows
from model_code.networks.head import Head
from model_code.networks.weights import Weights, find_weights
from model_code.train.checkpoints import fingerprint
from model_code.train.features import Features, class_rows, digest, join, read_features
from model_code.train.head.task import HeadRecipe, fit_head
from model_code.train.head.teacher import Teacher
from model_code.train.job import Job, Judged, Refit, Refitted


def prepare(job: Job) -> tuple[Judged, Refit]:
    """Fit a head on the training embeddings; the returned call refits it on training and validation."""
    train, valid, embedder = _channels(job)
    recipe = HeadRecipe.of(job.values)
    rows = _rows(job, embedder, train) if recipe.prior and not recipe.hidden else None
    teacher = Teacher.of(job) if recipe.distillation else None
    if teacher:
        train = replace(train, taught=teacher.answers(train.keys))
    named = (vars(recipe), *data_identity(job), job.classes)
    head, fit = fit_head(
        recipe,
        train,
        valid,
        job.classes,
        job.world,
        job.checkpoints(fingerprint("fit", *named)),
        job.reporter(recipe.epochs),
        rows=rows,
    )
    with torch.no_grad():
        logits = head(valid.evaluation())

    def refit() -> Refitted:
        print(f"refitting on {len(train)} + {len(valid)} photos for {fit.epochs} epochs", flush=True)
        both = join(train, valid)
        if teacher:
            both = replace(both, taught=teacher.answers(both.keys, valid=True))
        refitted, _ = fit_head(
            recipe,
            both,
            None,
            job.classes,
            job.world,
            job.checkpoints(fingerprint("refit", fit.epochs, *named)),
            job.reporter(fit.epochs),
            stop_after=fit.epochs,
            rows=rows,
        )
        return Refitted(
            model=_whole(embedder, job.folders.weights, refitted),
            reference=_whole(embedder, job.folders.weights, head),
            transform=embedder.transform,
            embedder_id=embedder.id,
            weights_sha256=None if embedder.weights_sha256 == NO_WEIGHTS else embedder.weights_sha256,
        )

    return Judged(fit, logits, valid.labels, len(train)), refit


def data_identity(job: Job) -> tuple[str, ...]:
    """Return embedder, training photos, validation photos and teacher. See `train.data_identity`."""
    train, valid, embedder = _channels(job)
    return embedder.id, digest(train), digest(valid), *Teacher.identity(job)


def _channels(job: Job) -> tuple[Features, Features, Embedder]:
    """Training and validation photos, embedded by the same embedder."""
    folders = job.folders
    train, embedder = read_features(folders.train, job.manifest.classes, Split.TRAIN)
    valid, other = read_features(folders.valid, job.manifest.classes, Split.VALID)
    _check(embedder, str(job.values["architecture"]), folders.train)
    if other.id != embedder.id:
        raise EmbeddingsError(
            f"{folders.train} was made by embedder {embedder.id}, {folders.valid} by {other.id}; "
            "embed both with the same weights and settings"
        )
    return train, valid, embedder


def _rows(job: Job, embedder: Embedder, train: Features) -> ClassRows | None:
    """Return the pretrained classifier's rows for the classes of the data set, or None where the weights bring none."""
    if job.folders.weights is None:
        if embedder.weights_sha256 != NO_WEIGHTS and job.world.is_main:
            print("no --weights: the head starts without the pretrained classifier's rows", flush=True)
        return None
    weights = _weights(embedder, job.folders.weights)
    return class_rows(weights, train, job.classes) if weights is not None else None


def _weights(embedder: Embedder, folder: Path | None) -> Weights | None:
    """Return the weights that made the embeddings.

    Raises:
        EmbeddingsError: `folder` holds others.
    """
    weights = find_weights(folder)
    found = NO_WEIGHTS if weights is None else weights.sha256
    if found != embedder.weights_sha256:
        raise EmbeddingsError(
            f"the embeddings were made with weights {embedder.weights_sha256[:12]}, not with {found[:12]} "
            f"({folder or 'no --weights'}); give the same weights"
        )
    return weights


def _check(embedder: Embedder, architecture: str, folder: Path) -> None:
    if embedder.architecture != architecture:
        raise EmbeddingsError(
            f"{folder} holds embeddings of {embedder.architecture}, but architecture={architecture}; "
            "embed again or change architecture"
        )


def _whole(embedder: Embedder, weights: Path | None, head: Head) -> nn.Module:
    """Return the backbone that made the embeddings, with the head on it."""
    found = _weights(embedder, weights)
    backbone = build_backbone(embedder.architecture, found.path if found else None)
    if backbone.dim != head.dim:
        raise EmbeddingsError(
            f"{embedder.architecture} gives {backbone.dim} numbers per photo, not {head.dim} as the embeddings "
            "have; embed again"
        )
    return attach_head(backbone, head.folded()).eval()
