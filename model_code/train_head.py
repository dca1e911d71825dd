"""`train --strategy head`: embeddings in, a fitted head out; the backbone is only needed for export."""

import hashlib
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from model_code.architectures import attach_head, build_backbone
from model_code.checkpoints import fingerprint
from model_code.embed import find_weights
from model_code.embeddings import NO_WEIGHTS, Embedder, EmbeddingsError, read_folder
from model_code.features import Features, collect, join
from model_code.head import Head, HeadRecipe, fit_head
from model_code.train import Job, Judged, Refit, Refitted


def prepare(job: Job) -> tuple[Judged, Refit]:
    """Fit a head on the training embeddings; the returned call refits it on training and validation."""
    train, embedder = read_features(job.folders.train, job.manifest.classes)
    valid, _ = read_features(job.folders.valid, job.manifest.classes)
    _check(embedder, str(job.values["architecture"]), job.folders.train)
    recipe = HeadRecipe.of(job.values)
    identity = (vars(recipe), embedder.id, digest(train), digest(valid), job.classes)
    head, fit = fit_head(
        recipe,
        train,
        valid,
        job.classes,
        job.world,
        job.checkpoints(fingerprint("fit", *identity)),
        job.reporter(recipe.epochs),
    )
    with torch.no_grad():
        logits = head(valid.evaluation())

    def refit() -> Refitted:
        print(f"refitting on {len(train)} + {len(valid)} photos for {fit.epochs} epochs", flush=True)
        refitted, _ = fit_head(
            recipe,
            join(train, valid),
            None,
            job.classes,
            job.world,
            job.checkpoints(fingerprint("refit", fit.epochs, *identity)),
            job.reporter(fit.epochs),
            stop_after=fit.epochs,
        )
        return Refitted(
            model=_whole(embedder, job.folders.weights, refitted),
            reference=_whole(embedder, job.folders.weights, head),
            transform=embedder.transform,
            embedder_id=embedder.id,
            weights_sha256=None if embedder.weights_sha256 == NO_WEIGHTS else embedder.weights_sha256,
        )

    return Judged(fit, logits, valid.labels, len(train)), refit


@lru_cache(maxsize=4)
def read_features(folder: Path, classes: tuple[str, ...]) -> tuple[Features, Embedder]:
    """The features of a channel and what computed them.

    Kept in memory, because the trials of a packed search all read the same.

    Raises:
        EmbeddingsError: Nothing there, or files that do not belong together.
    """
    batches = read_folder(folder)
    return collect(batches, classes), batches[0].embedder


def digest(features: Features) -> str:
    """Names the photos and labels, so that a checkpoint is never resumed on other data."""
    names = hashlib.sha256("\n".join(features.keys).encode())
    names.update(features.labels.numpy().tobytes())
    names.update(features.views.numpy().tobytes())
    return names.hexdigest()[:16]


def _check(embedder: Embedder, architecture: str, folder: Path) -> None:
    if embedder.architecture != architecture:
        raise EmbeddingsError(
            f"{folder} holds embeddings of {embedder.architecture}, but architecture={architecture}; "
            "embed again or change architecture"
        )


def _whole(embedder: Embedder, weights: Path, head: Head) -> nn.Module:
    """The backbone that made the embeddings, with the head on it."""
    path = find_weights(weights if weights.exists() else None)
    found = NO_WEIGHTS if path is None else hashlib.sha256(path.read_bytes()).hexdigest()
    if found != embedder.weights_sha256:
        raise EmbeddingsError(
            f"the embeddings were made with weights {embedder.weights_sha256[:12]}, the weights channel "
            f"{weights} holds {found[:12]}; give the same weights"
        )
    backbone = build_backbone(embedder.architecture, path)
    if backbone.dim != head.dim:
        raise EmbeddingsError(
            f"{embedder.architecture} gives {backbone.dim} numbers per photo, not {head.dim} as the embeddings "
            "have; embed again"
        )
    return attach_head(backbone, head.folded()).eval()
