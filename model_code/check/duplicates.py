"""Near-duplicates: pairs of photos whose embeddings are close and whose pixels then match."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model_code.data.photos import PhotoError, decode
from model_code.process.parallel import ordered_map

# Cosine of centered embeddings, mobilenet_v2 on 12,000 dog photos: of copies that were resized to half, cropped by a
# tenth, mirrored, brightened or re-encoded, 99 % are above; so are 1 in 10,000 pairs of different photos.
_CLOSE = 0.75
_DIMENSIONS = 128
"""A random projection to this width keeps cosines within 0.04 (one deviation) at a tenth of the work."""
_SLACK = 0.12
_TILE = 2048
_NEIGHBORS = 5
"""Pairs kept of one photo, so that a burst of 1,000 frames does not fill memory with its half million pairs."""
_SIDE = 48
_SCALES = (1.0, 0.97, 0.95, 0.92, 0.9, 0.87, 0.84)
_MATCH = 0.9
"""Correlation of the gray pixels of both photos once they are aligned."""

Gray = NDArray[np.float32]
Features = NDArray[np.float32]
Rows = NDArray[np.float16] | NDArray[np.float32]


@dataclass(frozen=True)
class Pair:
    """Two photos of the same thing, by index, `left` < `right`.

    Attributes:
        similarity: Cosine of their centered embeddings.
        match: Correlation of their pixels after alignment.
        mirrored: One is the mirror image of the other.
    """

    left: int
    right: int
    similarity: float
    match: float
    mirrored: bool


def verified(
    pairs: Iterable[tuple[int, int, float]], read: Callable[[int], bytes], workers: int | None = None
) -> list[Pair]:
    """Return the close pairs whose pixels match too, by index.

    Args:
        pairs: What `close_pairs` gives.
        read: The file of a photo, by index.
        workers: Threads that decode. Default: the cores of this machine.
    """
    found = sorted(pairs, key=lambda pair: pair[:2])
    # Each photo of a pair is decoded once, whatever number of pairs it is in.
    wanted = sorted({at for left, right, _ in found for at in (left, right)})
    grays = dict(zip(wanted, ordered_map(lambda at: _gray(read(at)), wanted, workers), strict=True))

    def verify(pair: tuple[int, int, float]) -> Pair | None:
        left, right, similarity = pair
        one, other = grays[left], grays[right]
        if one is None or other is None:
            return None
        match, mirrored = alignment(one, other)
        return Pair(left, right, similarity, match, mirrored) if match >= _MATCH else None

    return [pair for pair in ordered_map(verify, found, workers) if pair is not None]


def close_pairs(rows: Rows, close: float = _CLOSE) -> Iterator[tuple[int, int, float]]:
    """(i, j, cosine) with i < j of centered embeddings [photos, dim] at least `close`; at most a few per photo."""
    center = rows.mean(axis=0, dtype=np.float32)
    few = _projected(rows, center)
    for top in range(0, len(rows), _TILE):
        hits: list[tuple[int, int, float]] = []
        for left in range(top, len(rows), _TILE):
            near = few[top : top + _TILE] @ few[left : left + _TILE].T
            i, j = np.nonzero(near >= close - _SLACK)
            i, j = i + top, j + left
            i, j = i[j > i], j[j > i]
            for start in range(0, len(i), _TILE):
                one, other = i[start : start + _TILE], j[start : start + _TILE]
                cosine = np.einsum("nd,nd->n", _unit(rows[one], center), _unit(rows[other], center))
                kept = cosine >= close
                hits += zip(one[kept].tolist(), other[kept].tolist(), cosine[kept].tolist(), strict=True)
        yield from _nearest(hits)


def _unit(rows: Rows, center: Features) -> Features:
    unit = rows.astype(np.float32) - center
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    return unit


def _projected(rows: Rows, center: Features) -> Features:
    """Unit rows [photos, at most `_DIMENSIONS`] whose cosines are nearly those of `rows`."""
    width = rows.shape[1]
    draw = np.random.default_rng(0).standard_normal((width, min(width, _DIMENSIONS))).astype(np.float32)
    basis = np.linalg.qr(draw)[0].astype(np.float32)
    few = np.empty((len(rows), basis.shape[1]), np.float32)
    for start in range(0, len(rows), _TILE):
        part = _unit(rows[start : start + _TILE], center) @ basis
        few[start : start + _TILE] = part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12)
    return few


def _nearest(hits: list[tuple[int, int, float]]) -> Iterator[tuple[int, int, float]]:
    hits.sort(key=lambda hit: (hit[0], -hit[2]))
    last, kept = -1, 0
    for hit in hits:
        kept = kept + 1 if hit[0] == last else 1
        last = hit[0]
        if kept <= _NEIGHBORS:
            yield hit


def _gray(data: bytes) -> Gray | None:
    """Return a photo of `_SIDE` x `_SIDE` gray pixels; its shape is lost, so that another crop is comparable."""
    try:
        image = Image.fromarray(decode(data, min_side=2 * _SIDE))
    except PhotoError:
        return None
    return np.asarray(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float32)


def alignment(one: Gray, other: Gray) -> tuple[float, bool]:
    """Return the best correlation of two gray squares, -1 to 1, and whether `other` had to be mirrored for it.

    Either may be a crop of the other: it is shrunk by each of `_SCALES` and moved over the other (normalized
    cross-correlation, Lewis 1995).
    """
    if min(one.std(), other.std()) <= 0:
        return 0.0, False
    views = ((False, other), (True, other[:, ::-1]))
    best = max((float(np.corrcoef(one.ravel(), turned.ravel())[0, 1]), turn) for turn, turned in views)
    if best[0] >= _MATCH:
        return best
    for mirrored, turned in views:
        for scale in _SCALES[1:]:
            for whole, part in ((one, turned), (turned, one)):
                found = _correlate(whole, part, scale)
                if found > best[0]:
                    best = (found, mirrored)
    return best


def _correlate(whole: Gray, part: Gray, scale: float) -> float:
    """Return the best correlation of `part`, shrunk by `scale`, with any window of `whole`."""
    side = round(_SIDE * scale)
    small = np.asarray(Image.fromarray(part).resize((side, side), Image.Resampling.BILINEAR), np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(whole, (side, side)).reshape(-1, side * side)
    small = small.ravel() - small.mean()
    mean = windows.mean(axis=1)
    spread = np.sqrt(np.maximum((windows**2).sum(axis=1) - windows.shape[1] * mean**2, 1e-6))
    return float((windows @ small / spread).max() / max(float(np.linalg.norm(small)), 1e-6))
