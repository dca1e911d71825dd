"""Look-alikes: perceptual hashes propose pairs of photos, pixels confirm those that show the same picture."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model_code.data import photos
from model_code.data.photos import PhotoError
from model_code.process.parallel import ordered_map

HASH_BITS = 64
# Measured on Stanford Dogs: re-encoding and resizing move the hash by 0-6 bits, cropping 2 % off each side
# by 5-10; among 72 million pairs of different photos the first look-alikes appear at 10 bits.
MAX_DISTANCE = 8
# Bands that a pair must share. With fewer, comparisons grow with the square of the photos from 100,000 on; with more,
# there are more ways to choose them than pays.
_SHARED = 3
# A fixed camera makes every pair a candidate. A photo with 16 is compared no further: enough for copies to
# find each other; more only cost. Small sets afford more.
_PAIRS_PER_PHOTO = 16
_FEW_PAIRS = 400_000
# Comparisons of a photo with each other that take less time than sorting a million.
_FEW_COMPARISONS = 2 * 10**9

SIDE = 32
# Levels (of 255) between two photos shrunk to SIDE x SIDE, as root mean square and at most in any cell. Copies of 80
# photos of Stanford Dogs, re-encoded at quality 40 to 75 and resized to 0.5 to 0.94, differ by up to 2.9 and 21 (95 %:
# 2.5 and 15); a scratch of 3 x 16 pixels on 320 x 240 shows as 17 and more.
_RMS, _PEAK = 3.0, 16.0
# Copies rarely come by the dozen; the photos of a fixed camera always do. Among that many look-alikes, only what is
# stored again at a quality of 75 or more (0.6 and 3 levels) still counts as the same picture.
_CROWD = 12
_CROWD_RMS, _CROWD_PEAK = 1.0, 5.0
_CHUNK = 4096
_PART = 1 << 18

Pairs = NDArray[np.int32]
"""Indices of two photos each, [n, 2], the lower one first, sorted."""


class Neighbors:
    """The photos that each photo is paired with.

    In arrays: a million photos of one camera have millions of pairs, whose numbers as Python objects take gigabytes.

    Args:
        pairs: Sorted pairs.
        count: All photos.
    """

    def __init__(self, pairs: Pairs, count: int) -> None:
        self.any = np.zeros(count, bool)
        """Photos that are in a pair, [count]."""
        self.any[pairs] = True
        # By the higher one, as one number each: sorted in place, in less memory than an order of rows takes.
        numbers = pairs[:, 1].astype(np.int64)
        numbers *= count
        numbers += pairs[:, 0]
        numbers.sort()
        self._lower_at = np.searchsorted(numbers, np.arange(count + 1) * count)
        numbers %= count
        self._lower, self._higher = numbers.astype(np.int32), pairs[:, 1]
        self._higher_at = np.searchsorted(pairs[:, 0], np.arange(count + 1, dtype=np.int32))

    def of(self, index: int) -> list[int]:
        """Return the photos paired with one, in ascending order."""
        lower = self._lower[self._lower_at[index] : self._lower_at[index + 1]]
        higher = self._higher[self._higher_at[index] : self._higher_at[index + 1]]
        return [*lower.tolist(), *higher.tolist()]


def same_pictures(
    hashes: NDArray[np.uint64],
    read: Callable[[int], bytes],
    wanted: NDArray[np.bool_] | None = None,
    workers: int | None = None,
) -> Pairs:
    """Find the pairs of photos that show the same picture, re-encoded or resized.

    Args:
        hashes: Perceptual hash of each photo; 0 matches nothing.
        read: The bytes of photo i. Only photos that a hash proposes are read.
        wanted: Photos whose pairs matter, with each other and with the rest; default: all.
        workers: Threads that read and decode; default: the cores of this machine.
    """
    wanted = np.ones(len(hashes), bool) if wanted is None else wanted
    if int(wanted.sum()) * len(hashes) <= _FEW_COMPARISONS:
        proposed = _near(hashes, wanted)
    else:
        proposed = near_duplicates(hashes)
        proposed = proposed[wanted[proposed].any(1)]
    involved = np.zeros(len(hashes), bool)
    involved[proposed] = True
    count = int(involved.sum())
    if not count:
        return proposed
    # On disk: of a million photos of one camera, the thumbnails are 3 GB.
    with tempfile.TemporaryFile(prefix="look-alikes-") as file:
        small = np.memmap(file, np.uint8, "w+", shape=(count, SIDE, SIDE, 3))
        readable = np.zeros(count, bool)

        def look(index: int) -> NDArray[np.uint8] | None:
            try:
                return thumbnail(read(index))
            except (PhotoError, OSError):
                return None  # writing its shard will say so

        for position, pixels in enumerate(ordered_map(look, np.flatnonzero(involved).tolist(), workers)):
            if pixels is not None:
                small[position], readable[position] = pixels, True
        rows = (np.cumsum(involved, dtype=np.int32) - 1)[proposed]
        return proposed[_confirmed(small, readable, wanted[involved], rows)]


def thumbnail(data: bytes) -> NDArray[np.uint8]:
    """Return the pixels that decide: a photo shrunk to uint8 [SIDE, SIDE, 3].

    Raises:
        PhotoError: The photo cannot be decoded.
    """
    pixels = photos.decode(data, min_side=4 * SIDE)
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _confirmed(
    small: NDArray[np.uint8], readable: NDArray[np.bool_], wanted: NDArray[np.bool_], rows: Pairs
) -> NDArray[np.bool_]:
    # Of the others, only the pairs with wanted photos are known: they do not say whether it is crowded there.
    pairs_of = np.where(wanted, np.bincount(rows.reshape(-1)), _CROWD)
    same = np.empty(len(rows), bool)
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        crowded = pairs_of[part].min(1) >= _CROWD
        difference = small[part[:, 0]].astype(np.float32) - small[part[:, 1]]
        rms = np.sqrt((difference**2).mean((1, 2, 3)))
        peak = np.abs(difference).max((1, 2, 3))
        same[start : start + _CHUNK] = (
            readable[part].all(1)
            & (rms <= np.where(crowded, _CROWD_RMS, _RMS))
            & (peak <= np.where(crowded, _CROWD_PEAK, _PEAK))
        )
    return same


def _near(hashes: NDArray[np.uint64], wanted: NDArray[np.bool_]) -> Pairs:
    """Return the pairs of `near_duplicates` with a wanted photo, by comparing it with each: few photos join many."""
    known = np.flatnonzero(hashes)
    count, others = max(1, len(hashes)), hashes[known]
    enough = max(_PAIRS_PER_PHOTO, _FEW_PAIRS // count)
    parts = [np.empty(0, np.int64)]
    for index in np.flatnonzero(wanted & (hashes != 0)).tolist():
        distances = np.bitwise_count(others ^ hashes[index])
        at = np.flatnonzero((distances <= MAX_DISTANCE) & (known != index))
        if len(at) > enough:
            at = at[np.argpartition(distances[at], enough)[:enough]]
        near = known[at]
        parts.append(np.minimum(near, index) * count + np.maximum(near, index))
    return _pairs(np.unique(np.concatenate(parts)), count)


def _pairs(numbers: NDArray[np.int64], count: int) -> Pairs:
    """Return pairs that were given as one number each: the lower index times `count` plus the higher one."""
    pairs = np.empty((len(numbers), 2), np.int32)
    np.floor_divide(numbers, count, out=pairs[:, 0], casting="unsafe")
    np.remainder(numbers, count, out=pairs[:, 1], casting="unsafe")
    return pairs


def near_duplicates(hashes: NDArray[np.uint64], distance: int = MAX_DISTANCE) -> Pairs:
    """Find the pairs of hashes that differ in at most `distance` bits; 0 matches nothing.

    Cut into d + 3 bands, two hashes within d bits agree on at least three of them (pigeonhole: Norouzi et al.,
    multi-index hashing, 2012), so only photos that share three bands are compared: 5 million pairs of 100,000
    different photos, not 5 billion. A photo that has many pairs is compared no further.
    """
    known = np.flatnonzero(hashes).astype(np.int32)
    return known[_pairs(_close_pairs(hashes[known], distance), max(1, len(known)))]


def _close_pairs(hashes: NDArray[np.uint64], distance: int) -> NDArray[np.int64]:
    """Return pairs of close hashes, sorted, each the lower index times the number of hashes plus the higher one."""
    count = max(1, len(hashes))
    found = np.empty(0, np.int64)
    edges = np.linspace(0, HASH_BITS, distance + _SHARED + 1).astype(int).tolist()
    bands = [((1 << (high - low)) - 1) << low for low, high in pairwise(edges)]
    pairs_of = np.zeros(len(hashes), np.int32)
    for shared in combinations(bands, _SHARED):
        close = _close_neighbors(hashes, pairs_of.copy(), np.uint64(sum(shared)), distance)
        close = close[_absent(close, found)]
        np.add.at(pairs_of, close // count, 1)
        np.add.at(pairs_of, close % count, 1)
        found = np.concatenate((found, close))
        found.sort(kind="stable")
    return found


def _absent(numbers: NDArray[np.int64], among: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which of some numbers are not among sorted ones, a part at a time: millions of places are much memory."""
    absent = np.ones(len(numbers), bool)
    for start in range(0, len(numbers) if len(among) else 0, _PART):
        part = numbers[start : start + _PART]
        at = np.searchsorted(among, part)
        absent[start : start + _PART] = among[np.minimum(at, len(among) - 1)] != part
    return absent


def _close_neighbors(
    hashes: NDArray[np.uint64], pairs_of: NDArray[np.int32], shared: np.uint64, distance: int
) -> NDArray[np.int64]:
    """Return pairs as `_close_pairs`: hashes that are close to each other and have the same `shared` bits.

    A hash that has enough pairs looks for no more.

    Args:
        hashes: Perceptual hashes.
        pairs_of: The pairs that each hash has; those found here are added.
        shared: Mask of the bits.
        distance: Bits that may differ.
    """
    searched = np.flatnonzero(pairs_of < _PAIRS_PER_PHOTO)
    part = hashes[searched] & shared
    order = np.argsort(part)
    part, order = part[order], searched[order]
    parts: list[NDArray[np.int64]] = []
    # Neighbors in the order of the shared bits, then neighbors' neighbors, while there are any with the same.
    step, at = 1, np.flatnonzero(part[1:] == part[:-1])
    while at.size:
        left, right = order[at], order[at + step]
        close = np.bitwise_count(hashes[left] ^ hashes[right]) <= distance
        if close.any():
            left, right = left[close], right[close]
            parts.append(np.minimum(left, right) * len(hashes) + np.maximum(left, right))
            np.add.at(pairs_of, left, 1)
            np.add.at(pairs_of, right, 1)
            if pairs_of[left].max() >= _PAIRS_PER_PHOTO:
                at = at[pairs_of[order[at]] < _PAIRS_PER_PHOTO]
        step += 1
        at = at[at < len(part) - step]
        at = at[part[at + step] == part[at]]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)
