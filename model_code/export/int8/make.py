"""The int8 form of a bundle's network: choice of photos and of the model that judges it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from model_code.bundle import archive as bundle
from model_code.data.photos import PhotoError, Pixels
from model_code.data.shards import read_shard
from model_code.data.transform import Transform
from model_code.export.int8.activations import Floats, observe
from model_code.export.int8.correction import fit, fold
from model_code.export.int8.guard import Verdict
from model_code.export.int8.quantize import OPERATORS, quantize
from model_code.export.int8.search import PHOTOS_PER_BATCH, Photos, Readout, infer, search
from model_code.export.onnx_graph import export_onnx, has_features
from model_code.networks.backbone import Classifier
from model_code.process.cores import cores

CALIBRATION_PHOTOS = 96
REFIT_PHOTOS = 1000
# 2,800 photos of 224 px: enough to resolve half a point, far below a job's 2 GB.
MAX_VALID_BYTES = 400 << 20

_CALIBRATION_BATCH = (
    2  # every activation of a batch is in memory at once: 0.2 GB a photo for efficientnet_v2_s
)


@dataclass(frozen=True)
class Int8:
    """The verdict and, where int8 was kept, its logits on the validation photos with their classes [photos]."""

    verdict: Verdict
    logits: Floats | None
    labels: NDArray[np.int64]


def make_int8(
    output: Path,
    model: nn.Module,
    reference_model: nn.Module,
    card: Mapping[str, Any],
    calibration_shards: Sequence[Path],
    valid_shards: Sequence[Path],
) -> Int8:
    """Write `model.int8.onnx` next to `model.onnx` in `output`, if it passes the guard.

    The guard judges `reference_model`, which has not seen the validation photos. With a frozen backbone both
    models share every layer that is quantized, so one graph serves both; else the recipe found for the
    reference is applied to the model.
    """
    transform: Transform = card["transform"]
    pixels, labels = valid_photos(valid_shards, transform, card["classes"])
    if not len(labels) or not calibration_shards:
        channel = "validation" if calibration_shards else "calibration"
        return Int8(
            Verdict(False, f"no {channel} photos were given to judge int8 with", None, 0), None, labels
        )
    photos = calibration_photos(calibration_shards, transform)
    final, int8 = output / bundle.ONNX, output / bundle.ONNX_INT8

    def seen() -> Iterator[Floats]:
        return batches(photos, transform, _CALIBRATION_BATCH)

    def training() -> Iterator[Floats]:
        some = islice(_decoded(calibration_shards, transform), REFIT_PHOTOS)
        return batches((pixels for _, pixels in some), transform, PHOTOS_PER_BATCH)

    def valid() -> Iterator[Floats]:
        return batches(pixels, transform, PHOTOS_PER_BATCH)

    with tempfile.TemporaryDirectory(prefix="int8-") as scratch:
        folder = Path(scratch)
        shared = shares_backbone(model, reference_model)
        reference = final if shared else folder / "reference.onnx"
        if not shared:
            export_onnx(reference_model, transform.crop, reference)
        head = _readout(reference_model)
        looked_at = Photos(seen, training, valid, labels)
        outcome = search(reference, folder, looked_at, head, cores())
        kept = outcome.kept
        if kept is not None:
            refit = kept.refit
            if shared:
                shutil.copyfile(kept.path, int8)
            else:
                ranges = observe(final, seen(), cores(), OPERATORS).ranges()
                quantize(final, ranges, kept.recipe, int8)
                if refit is not None:
                    refit = fit(*infer([int8, final], training(), cores(), "features"))
            if refit is not None:
                fold(int8, refit)
    return Int8(outcome.verdict, None if kept is None else kept.logits, labels)


def shares_backbone(model: nn.Module, other: nn.Module) -> bool:
    """Return True if two classifiers differ in their heads only, and the head takes the mean of a feature map."""
    if not (
        isinstance(model, Classifier) and isinstance(other, Classifier) and model.backbone.has_feature_map
    ):
        return False
    ours, theirs = model.backbone.state_dict(), other.backbone.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def _readout(model: nn.Module) -> Readout | None:
    """Return the head of `model` on its embeddings; None where they are not the mean of a feature map."""
    if not has_features(model):
        return None
    assert isinstance(model, Classifier)
    head = model.head

    @torch.inference_mode()
    def readout(embeddings: Floats) -> Floats:
        logits: Floats = head(torch.from_numpy(embeddings)).numpy()
        return logits

    return readout


def calibration_photos(shards: Sequence[Path], transform: Transform) -> list[Pixels]:
    """Return the first photos of the calibration shards: photos in a shard are shuffled."""
    return [pixels for _, pixels in islice(_decoded(shards, transform), CALIBRATION_PHOTOS)]


def valid_photos(
    shards: Sequence[Path], transform: Transform, classes: Sequence[str]
) -> tuple[list[Pixels], NDArray[np.int64]]:
    """Validation photos, resized and cropped, and their classes [photos], up to `MAX_VALID_BYTES`."""
    index = {name: number for number, name in enumerate(classes)}
    known = ((label, pixels) for label, pixels in _decoded(shards, transform) if label in index)
    photos = list(islice(known, MAX_VALID_BYTES // (3 * transform.crop**2)))
    return [pixels for _, pixels in photos], np.array([index[label] for label, _ in photos], np.int64)


def batches(photos: Iterable[Pixels], transform: Transform, size: int) -> Iterator[Floats]:
    """Normalized batches, float32 [size, 3, h, w]; the last may be smaller."""
    rest = iter(photos)
    while batch := list(islice(rest, size)):
        yield transform.normalize(np.stack(batch))


def _decoded(shards: Sequence[Path], transform: Transform) -> Iterator[tuple[str, Pixels]]:
    for shard in shards:
        for sample in read_shard(shard):
            try:
                yield sample.label, transform.pixels(sample.data)
            except (
                PhotoError
            ):  # upload lists unreadable photos; one that slipped through must not fail the job
                continue
