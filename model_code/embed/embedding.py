"""Compute the embeddings of shards with one forward pass per view."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_code.data import shards
from model_code.data.photos import PhotoError, Pixels
from model_code.data.shards import Entry, Split
from model_code.embed.embeddings import Embedder, Embeddings, file_name, write_embeddings
from model_code.embed.forward import Forward
from model_code.process.cores import cores
from model_code.process.progress import Progress


class EmbedError(RuntimeError):
    """Embeddings that cannot be used."""


class _Batch(NamedTuple):
    """Decoded photos of one forward pass; `features` has a row per view."""

    photos: Sequence[Entry]
    features: NDArray[np.float32]


_NOTHING = _Batch((), np.empty((0, 0), np.float32))


def embed_shard(
    path: Path, embedder: Embedder, forward: Forward, progress: Progress, batch_size: int | None = None
) -> Embeddings:
    """Embed one shard; memory holds its embeddings and, per thread, one batch of photos.

    Every thread takes batches until none is left and does all of a batch itself, so that none waits for another.

    Args:
        path: The shard.
        embedder: Its transform and views.
        forward: Runs the backbone.
        progress: Advanced per photo.
        batch_size: Photos per forward pass, all views included.

    Raises:
        ShardError: The shard is damaged.
        EmbedError: The backbone gives numbers that float16 cannot hold.
    """
    split, entries = shards.read_index(path)
    views = embedder.views_of(split)
    size = max(1, (batch_size or forward.batch_size) // views)
    starts = iter(range(0, len(entries), size))  # shared by the threads: taking a step of it is atomic
    batches = [_NOTHING] * len(range(0, len(entries), size))
    counting, failed = threading.Lock(), threading.Event()

    def work() -> None:
        pixels = np.empty((size * views, embedder.transform.crop, embedder.transform.crop, 3), np.uint8)
        try:
            for start in starts:
                if failed.is_set():
                    return
                photos = entries[start : start + size]
                batches[start // size] = _embed_batch(file.fileno(), photos, embedder, views, forward, pixels)
                with counting:
                    progress.advance(len(photos))
        except BaseException:
            failed.set()
            raise

    with path.open("rb") as file, ThreadPoolExecutor(forward.callers) as pool:
        for worker in [pool.submit(work) for _ in range(forward.callers)]:
            worker.result()
    return _collect(batches, path, embedder, split, views)


def embed(
    paths: Sequence[Path],
    output: Path,
    embedder: Embedder,
    forward: Forward,
    batch_size: int | None = None,
) -> float:
    """Embed the shards that have no file in `output` yet; each file appears when it is complete.

    Returns:
        Photos per second, every view counted as one; 0 when nothing was missing.

    Raises:
        ShardError: A shard is damaged.
    """
    output.mkdir(parents=True, exist_ok=True)
    missing = [path for path in paths if not (output / file_name(path.stem)).exists()]
    print(
        f"{len(paths)} shards, {len(missing)} without embeddings; {forward.name}, {cores()} cores", flush=True
    )
    progress = Progress(sum(shards.count_photos(path) for path in missing), "photos")
    started = time.monotonic()
    rows = 0
    for path in missing:
        batch = embed_shard(path, embedder, forward, progress, batch_size)
        write_embeddings(output / file_name(path.stem), batch)
        rows += len(batch.embeddings)
    return rows / (time.monotonic() - started)


def _embed_batch(
    descriptor: int, photos: Sequence[Entry], embedder: Embedder, views: int, forward: Forward, pixels: Pixels
) -> _Batch:
    """Embed some photos of an open shard, using `pixels` as the buffer of all their views."""
    decoded: list[Entry] = []
    for entry in photos:
        row = len(decoded) * views
        try:
            data = os.pread(descriptor, entry.size, entry.offset)
            for view, image in enumerate(embedder.transform.views(data, entry.key, range(views))):
                pixels[row + view] = image
            decoded.append(entry)
        except PhotoError as error:  # upload has decoded it: another release of the codec
            print(f"skipped key={entry.key} reason={error}", flush=True)
    if not decoded:
        return _NOTHING
    return _Batch(decoded, forward(pixels[: len(decoded) * views]))


def _half(features: NDArray[np.float32], embedder: Embedder) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        half = features.astype(np.float16)
    if not np.isfinite(half).all():
        raise EmbedError(f"{embedder.architecture} gives numbers beyond float16: are its weights whole?")
    return half


def _collect(
    batches: Sequence[_Batch], path: Path, embedder: Embedder, split: Split, views: int
) -> Embeddings:
    filled = [batch for batch in batches if batch.photos]
    if not filled:
        raise EmbedError(f"no photo in {path.name} can be decoded; upload the data set again")
    photos = [entry for batch in filled for entry in batch.photos]
    names = [entry.label for entry in photos]
    classes = tuple(sorted(set(names)))
    index = {name: position for position, name in enumerate(classes)}
    labels = np.array([index[name] for name in names], np.int32)
    return Embeddings(
        embeddings=_half(np.concatenate([batch.features for batch in filled]), embedder),
        photo=np.repeat(np.arange(len(names), dtype=np.int32), views),
        view=np.tile(np.arange(views, dtype=np.int32), len(names)),
        label=np.repeat(labels, views),
        keys=tuple(entry.key for entry in photos),
        classes=classes,
        embedder=embedder,
        shard=path.stem,
        split=split,
    )
