"""Shards to embeddings: `python -m model_code.embed --help`."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_code import shards
from model_code.architectures import ArchitectureError, build_backbone
from model_code.dataset import ordered_map
from model_code.embeddings import (
    NO_WEIGHTS,
    Embedder,
    Embeddings,
    file_name,
    write_embeddings,
)
from model_code.forward import Forward, best_forward, cores
from model_code.photos import PhotoError, Pixels
from model_code.progress import Progress
from model_code.shards import Sample, ShardError, Split
from model_code.transform import Transform, for_architecture

_INPUT = Path("/opt/ml/processing/input")
_OUTPUT = Path("/opt/ml/processing/output")
# Small enough to stay in the cores' caches; measured best for mobilenet_v2 among 4 to 32.
_CPU_BATCH = 8
_GPU_BATCH = 128


class EmbedError(RuntimeError):
    """Embeddings that cannot be used."""


class _Batch(NamedTuple):
    """Decoded photos with all their views: pixels [photos x views, h, w, 3]."""

    keys: list[str]
    labels: list[str]
    pixels: Pixels


@dataclass
class _Rows:
    """What a shard's embeddings grow from."""

    keys: list[str]
    labels: list[str]
    features: list[NDArray[np.float16]]


def embed_shard(
    path: Path, embedder: Embedder, forward: Forward, progress: Progress, batch_size: int | None = None
) -> Embeddings:
    """Embed one shard; memory holds its embeddings and a few batches of photos.

    :param batch_size: photos per forward pass, all views included.
    :raises shards.ShardError: when the shard is damaged.
    :raises EmbedError: when the backbone gives numbers that float16 cannot hold.
    """
    split = shards.read_split(path)
    views = embedder.views_of(split)
    size = batch_size or (_CPU_BATCH if forward.concurrent else _GPU_BATCH)
    rows = _Rows([], [], [])

    def decode(samples: list[Sample]) -> _Batch:
        return _decode(samples, embedder.transform, views)

    def decode_and_run(samples: list[Sample]) -> tuple[_Batch, NDArray[np.float32] | None]:
        batch = decode(samples)
        features = forward(batch.pixels) if forward.concurrent and batch.keys else None
        return batch._replace(pixels=batch.pixels[:0]) if forward.concurrent else batch, features

    work = chunks(shards.read_shard(path), max(1, size // views))
    for batch, features in ordered_map(decode_and_run, work, cores()):
        if features is None and batch.keys:
            features = forward(batch.pixels)
        if features is not None:
            rows.keys += batch.keys
            rows.labels += batch.labels
            rows.features.append(_half(features, embedder, path))
        progress.advance(len(batch.keys))
    return _collect(rows, path, embedder, split, views)


def embed(
    paths: Sequence[Path],
    output: Path,
    embedder: Embedder,
    forward: Forward,
    batch_size: int | None = None,
) -> Progress:
    """Embed the shards that have no file in `output` yet; each file appears when it is whole.

    :return: the progress, which knows photos and rate.
    :raises shards.ShardError: when a shard is damaged.
    """
    output.mkdir(parents=True, exist_ok=True)
    missing = [path for path in paths if not (output / file_name(path.stem)).exists()]
    print(f"{len(paths)} shards, {len(missing)} without embeddings; {forward.name}, {cores()} cores", flush=True)
    progress = Progress(sum(shards.count_photos(path) for path in missing), "photos")
    for path in missing:
        write_embeddings(output / file_name(path.stem), embed_shard(path, embedder, forward, progress, batch_size))
    return progress


def chunks(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    """Lists of `size` samples, the last one shorter."""
    iterator = iter(samples)
    while batch := list(islice(iterator, size)):
        yield batch


def _decode(samples: list[Sample], transform: Transform, views: int) -> _Batch:
    batch = _Batch([], [], np.empty((len(samples) * views, transform.crop, transform.crop, 3), np.uint8))
    filled = 0
    for sample in samples:
        try:
            pixels = transform.views(sample.data, sample.key, range(views))
        except PhotoError as error:  # upload has decoded it: another release of the codec
            print(f"skipped key={sample.key} reason={error}", flush=True)
            continue
        batch.pixels[filled : filled + views] = pixels
        filled += views
        batch.keys.append(sample.key)
        batch.labels.append(sample.label)
    return batch._replace(pixels=batch.pixels[:filled])


def _half(features: NDArray[np.float32], embedder: Embedder, path: Path) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        half = features.astype(np.float16)
    if not np.isfinite(half).all():
        raise EmbedError(
            f"{embedder.architecture} gives numbers beyond float16 for {path.name}: are these weights meant for it?"
        )
    return half


def _collect(rows: _Rows, path: Path, embedder: Embedder, split: Split, views: int) -> Embeddings:
    if not rows.keys:
        raise EmbedError(f"no photo in {path.name} can be decoded; upload the data set again")
    classes = tuple(sorted(set(rows.labels)))
    index = {name: position for position, name in enumerate(classes)}
    labels = np.array([index[name] for name in rows.labels], np.int32)
    photos = np.arange(len(rows.keys), dtype=np.int32)
    return Embeddings(
        embeddings=np.concatenate(rows.features),
        photo=np.repeat(photos, views),
        view=np.tile(np.arange(views, dtype=np.int32), len(photos)),
        label=np.repeat(labels, views),
        keys=tuple(rows.keys),
        classes=classes,
        embedder=embedder,
        shard=path.stem,
        split=split,
    )


def find_weights(path: Path | None) -> Path | None:
    """The weights file: `path` itself, or the one file in that channel folder; None where there is none.

    :raises FileNotFoundError: when `path` names neither.
    """
    if path is None or (path == _INPUT / "weights" and not path.exists()):
        return None
    if path.is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(f"no weights at {path}; give a state_dict file, or leave --weights out")
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and not file.name.startswith(".")]
    if len(files) > 1:
        raise FileNotFoundError(f"{path} holds {len(files)} files; leave the one with the weights")
    return files[0] if files else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m model_code.embed",
        description="Compute the embeddings of the photos in shards, one safetensors file per shard. "
        "Shards that have a file in the output folder are skipped.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--shards", type=Path, default=_INPUT / "shards", help="folder with .tar shards")
    parser.add_argument(
        "--weights",
        type=Path,
        default=_INPUT / "weights",
        help="state_dict file or safetensors, or a folder with one; without it the backbone is untrained",
    )
    parser.add_argument("--output", type=Path, default=_OUTPUT / "embeddings", help="folder for the embeddings")
    parser.add_argument("--architecture", default="mobilenet_v2", help="torchvision's name of the backbone")
    parser.add_argument("--views", type=int, default=1, help="views of each training photo: itself, mirror image, crops")
    parser.add_argument("--transform", help="JSON of a transform; default: the architecture's own")
    parser.add_argument("--batch_size", type=int, help="views per forward pass; default: by processor")
    parser.add_argument("--runtime", choices=("auto", "onnx", "torch"), default="auto", help="what runs the backbone")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        paths = shards.shards_in(arguments.shards)
        weights = find_weights(arguments.weights)
        transform = (
            Transform.from_dict(json.loads(arguments.transform))
            if arguments.transform
            else for_architecture(arguments.architecture)
        )
        digest = _sha256(weights) if weights else NO_WEIGHTS
        embedder = Embedder(arguments.architecture, digest, transform, arguments.views)
        print(f"embedder={embedder.id} architecture={embedder.architecture} weights={digest[:12]}", flush=True)
        # Importing and exporting take seconds: nothing of it when there is nothing to do.
        if not paths:
            print(f"no shards in {arguments.shards}: nothing to do", flush=True)
            return 0
        forward = best_forward(build_backbone(arguments.architecture, weights), transform, arguments.runtime)
        progress = embed(paths, arguments.output, embedder, forward, arguments.batch_size)
    except (ArchitectureError, EmbedError, ShardError, FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if progress.done:
        print(f"photos_per_second={progress.rate():.1f}", flush=True)
    return 0


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
