"""Tiny data sets: embeddings that a linear head can tell apart, and photos whose classes are colours."""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from model_code.data.manifest import Manifest, ShardRow
from model_code.data.records import Fractions
from model_code.data.shards import Sample, Split, write_shard
from model_code.data.transform import Transform
from model_code.embed.embeddings import NO_WEIGHTS, Embedder, Embeddings, file_name, write_embeddings

# Matrices this small gain nothing from more threads, and lose a lot where the cores are busy.
torch.set_num_threads(1)

CLASSES = ("blue", "green", "red")
EMBEDDER = Embedder("squeezenet1_1", NO_WEIGHTS, Transform(32, 32), views=2)


def key(text: str) -> str:
    """A photo key for `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def embeddings(
    split: Split,
    per_class: int | Mapping[str, int] = 30,
    *,
    dim: int = 16,
    noise: float = 1.0,
    seed: int = 0,
    embedder: Embedder = EMBEDDER,
) -> Embeddings:
    """Points around one centre per class; the centres are the same for every split and seed."""
    centres = np.random.default_rng(7).normal(size=(len(CLASSES), dim))
    draw = np.random.default_rng([seed, list(Split).index(split)])
    counts = per_class if isinstance(per_class, Mapping) else dict.fromkeys(CLASSES, per_class)
    labels = np.repeat(np.arange(len(CLASSES)), [counts[name] for name in CLASSES])
    views = embedder.views_of(split)
    photos = np.repeat(np.arange(len(labels)), views)
    points = centres[labels[photos]] + noise * draw.normal(size=(len(photos), dim))
    return Embeddings(
        embeddings=points.astype(np.float16),
        photo=photos.astype(np.int32),
        view=np.tile(np.arange(views), len(labels)).astype(np.int32),
        label=labels[photos].astype(np.int32),
        keys=tuple(key(f"{split}-{seed}-{number}") for number in range(len(labels))),
        classes=CLASSES,
        embedder=embedder,
        shard=hashlib.sha256(f"{split}-{seed}".encode()).hexdigest(),
        split=split,
    )


def manifest(folder: Path) -> Path:
    """A manifest of `CLASSES`; its counts and shards are empty, because training does not read them."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "manifest.json"
    path.write_text(
        Manifest(
            name="toy",
            parent=None,
            seed=0,
            fractions=Fractions(),
            classes=CLASSES,
            counts={split.value: dict.fromkeys(CLASSES, 0) for split in Split},
            shards=(),
            photos_sha256="0" * 64,
            rejected=(),
        ).to_json()
    )
    return path


def list_shards(channels: Mapping[str, Path]) -> None:
    """Name the shards of `photo_channels` in their manifest."""
    rows = [
        ShardRow(path.stem, f"datasets/toy/shards/{path.name}", split, 0, path.stat().st_size)
        for split in (Split.TRAIN, Split.VALID)
        for path in sorted(channels[split].glob("*.tar"))
    ]
    listed = Manifest.from_json(channels["dataset"].read_bytes())
    channels["dataset"].write_text(replace(listed, shards=tuple(rows)).to_json())


def head_channels(folder: Path, per_class: int = 30, **settings: float) -> dict[str, Path]:
    """The channels of `train --strategy head`."""
    for split in (Split.TRAIN, Split.VALID):
        batch = embeddings(split, per_class, **settings)  # type: ignore[arg-type]
        (folder / split).mkdir(parents=True)
        write_embeddings(folder / split / file_name(batch.shard), batch)
    return {"train": folder / "train", "valid": folder / "valid", "dataset": manifest(folder / "dataset")}


def photo(label: str, number: int, side: int = 40) -> bytes:
    """A JPEG of a colour with some noise."""
    draw = np.random.default_rng([CLASSES.index(label), number])
    pixels = draw.integers(0, 120, (side, side, 3), dtype=np.uint8)
    pixels[:, :, 2 - CLASSES.index(label)] += 120
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def shard(folder: Path, split: Split, per_class: int, first: int = 0) -> Path:
    """A shard with `per_class` photos of each class, the classes taking turns."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for number in range(first, first + per_class):
        for label in CLASSES:
            data = photo(label, number)
            samples.append(Sample(hashlib.sha256(data).hexdigest()[:20], label, data, "jpg"))
    samples.sort(key=lambda sample: sample.key)
    info = write_shard(folder / "new.tar", split, samples)
    return (folder / "new.tar").rename(folder / f"{info.sha256}.tar")


def photo_channels(folder: Path, train: int = 8, valid: int = 4, shards: int = 2) -> dict[str, Path]:
    """The channels of `train --strategy finetune`: `train` photos a class in each of several shards."""
    for number in range(shards):
        shard(folder / "train", Split.TRAIN, train, first=number * train)
    shard(folder / "valid", Split.VALID, valid, first=shards * train)
    return {"train": folder / "train", "valid": folder / "valid", "dataset": manifest(folder / "dataset")}


def arguments(channels: Mapping[str, Path], **values: object) -> list[str]:
    """Channels and hyperparameters as a command line."""
    return [part for name, value in {**channels, **values}.items() for part in (f"--{name}", str(value))]
