"""The reference of a model: photos it was not trained on, as it sees them, to compare served photos with.

It is made of test photos when a model has been exported, and is part of its bundle; a model without one gets it at the
first look. Nothing of the model is fitted on these photos, so the split that judges it stays unseen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from model_code.data.shards import Sample, read_shard
from model_code.process.progress import Progress
from model_code.watch.bursts import Bursts
from model_code.watch.drift import Photos
from model_code.watch.estimate import Basis
from model_code.watch.model import REFERENCE, WatchedModel
from model_code.watch.simulate import FAULTS

SCHEMA_VERSION: Final = 1
FILE: Final = REFERENCE
MOST_PHOTOS: Final = 3000
"""Photos of a reference: beyond, a window's own chance is what limits a test."""
SIMULATED: Final = 400
LEAST_PHOTOS: Final = 20


class WatchError(RuntimeError):
    """A look that cannot be taken; the text is one line that names the fix."""


@dataclass(frozen=True)
class Reference:
    """The photos and answers that windows are compared with.

    Args:
        photos: As the model sees them.
        labels: Their classes, by the model's numbers, [m].
        simulated: See `estimate.Basis`.
        model: Digest of the model.
        received: Photos that the endpoint received when a person had a new model trained for them; windows are compared
            with these, because the test split never gets photos of a new camera. None: with `photos`.
    """

    photos: Photos
    labels: NDArray[np.int64]
    simulated: NDArray[np.float64]
    model: str
    received: Photos | None = None

    @property
    def basis(self) -> Basis:
        """The part that estimates of accuracy need."""
        return Basis(self.photos.probabilities, self.labels, self.simulated)

    @property
    def usual(self) -> Photos:
        """The photos that windows are compared with."""
        return self.received or self.photos

    @property
    def accuracy(self) -> float:
        """The model's, on these photos."""
        return float(self.basis.hits.mean())


def build(model: WatchedModel, shards: Sequence[Path]) -> Reference:
    """Make the reference of a model from test shards, whose photos are in the order of a hash.

    Raises:
        WatchError: There are too few photos of classes that the model knows.
    """
    known = {name: number for number, name in enumerate(model.predictor.classes)}
    samples = _first(shards, known)
    if len(samples) < LEAST_PHOTOS:
        raise WatchError(
            f"only {len(samples)} test photos of the model's classes, a reference needs {LEAST_PHOTOS}: "
            "give --test the shards of the data set that the model was evaluated on"
        )
    faulty = samples[:SIMULATED]
    progress = Progress(len(samples) + len(FAULTS) * len(faulty), "photos")
    seen = model.see([sample.data for sample in samples], advance=progress.advance)
    labels = np.array([known[samples[number].label] for number in seen.readable.tolist()], np.int64)
    basis = Basis(seen.photos.probabilities, labels, np.empty((0, 2)))
    pairs = [(float(basis.probabilities.max(axis=1).mean()), float(basis.hits.mean()))]
    for fault in FAULTS.values():
        again = model.see(
            [sample.data for sample in faulty],
            lambda pixels, number, fault=fault: fault(pixels, np.random.default_rng(number)),  # type: ignore[misc]
            progress.advance,
        )
        truth = np.array([known[faulty[number].label] for number in again.readable.tolist()], np.int64)
        answers = again.photos.probabilities
        pairs.append((float(answers.max(axis=1).mean()), float((answers.argmax(axis=1) == truth).mean())))
    return Reference(seen.photos, labels, np.array(pairs), model.digest)


def accepting(reference: Reference, model: WatchedModel, photos: Sequence[bytes]) -> Reference:
    """Return the reference with received photos, none of which the model was trained on; as it is, where too few."""
    seen = model.see(photos).photos
    seen = (
        seen.take(Bursts(reference.photos.embeddings).first_of_each(seen.embeddings)) if len(seen) else seen
    )
    return replace(reference, received=seen) if len(seen) >= LEAST_PHOTOS else reference


def write(bundle: Path, shards: Sequence[Path]) -> bool:
    """Make the reference of the model in a bundle's folder, and write it there; False, and why, where it cannot be."""
    model = WatchedModel(bundle)
    try:
        save(build(model, shards), bundle)
    except WatchError as error:
        print(f"the bundle has no reference for watch: {error}", flush=True)
        return False
    finally:
        model.close()
    return True


def save(reference: Reference, folder: Path) -> None:
    """Write the reference into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        **_tensors(reference.photos),
        **(_tensors(reference.received, "received_") if reference.received else {}),
        "labels": reference.labels.astype(np.int32),
        "simulated": reference.simulated.astype(np.float64),
    }
    fields = {"schema_version": SCHEMA_VERSION, "model": reference.model, "faults": [*FAULTS]}
    # One entry: safetensors writes several in any order, and the same training must give the same bundle.
    metadata = {"reference": json.dumps(fields)}
    save_file({name: np.ascontiguousarray(part) for name, part in tensors.items()}, folder / FILE, metadata)


def load(folder: Path, model: str) -> Reference | None:
    """Return the reference in a folder; None where there is none.

    Raises:
        WatchError: It is damaged, of a newer release, or of another model.
    """
    path = folder / FILE if folder.is_dir() else folder
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            # Earlier references have an entry per field.
            fields = json.loads(metadata["reference"]) if "reference" in metadata else metadata
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise WatchError(f"{path} is damaged ({error}): delete it, the next look makes another") from error
    if int(fields.get("schema_version", 0)) > SCHEMA_VERSION:
        raise WatchError(f"{path} was written by a newer release: update ml-pipeline")
    if fields.get("model") != model:
        raise WatchError(f"{path} is the reference of model {fields.get('model')}, not of {model}")
    received = _photos(tensors, "received_") if "received_embeddings" in tensors else None
    labels = tensors["labels"].astype(np.int64)
    return Reference(_photos(tensors), labels, tensors["simulated"], model, received)


def _tensors(photos: Photos, prefix: str = "") -> dict[str, NDArray[np.floating]]:
    return {
        f"{prefix}embeddings": photos.embeddings.astype(np.float16),
        f"{prefix}probabilities": photos.probabilities.astype(np.float32),
        f"{prefix}looks": photos.looks.astype(np.float32),
        f"{prefix}files": photos.files.astype(np.float32),
    }


def _photos(tensors: Mapping[str, NDArray[np.floating]], prefix: str = "") -> Photos:
    names = ("embeddings", "probabilities", "looks", "files")
    return Photos(*(tensors[prefix + name].astype(np.float32) for name in names))


def _first(shards: Sequence[Path], known: dict[str, int]) -> list[Sample]:
    samples: list[Sample] = []
    for shard in shards:
        for sample in read_shard(shard):
            if sample.label in known:
                samples.append(sample)
            if len(samples) == MOST_PHOTOS:
                return samples
    return samples
