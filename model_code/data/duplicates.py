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
# A fixed camera makes every pair a candidate. Enough pairs per photo for copies to find each other; more only cost.
_PAIRS_PER_PHOTO = 16
_FEW_PAIRS = 200_000

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

Pairs = NDArray[np.int64]
"""Indices of two photos each, [n, 2], the lower one first, sorted."""


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
    if wanted is not None and not wanted.any():
        return np.empty((0, 2), np.int64)
    proposed = near_duplicates(hashes)
    if wanted is not None:
        proposed = proposed[wanted[proposed].any(1)]
    involved, rows = np.unique(proposed, return_inverse=True)
    if not len(involved):
        return proposed
    rows = rows.reshape(proposed.shape)
    # On disk: of a million photos of one camera, the thumbnails are 3 GB.
    with tempfile.TemporaryFile(prefix="look-alikes-") as file:
        small = np.memmap(file, np.uint8, "w+", shape=(len(involved), SIDE, SIDE, 3))
        readable = np.zeros(len(involved), bool)

        def look(index: int) -> NDArray[np.uint8] | None:
            try:
                return thumbnail(read(index))
            except (PhotoError, OSError):
                return None  # writing its shard will say so

        for position, pixels in enumerate(ordered_map(look, involved.tolist(), workers)):
            if pixels is not None:
                small[position], readable[position] = pixels, True
        return proposed[_confirmed(small, rows) & readable[rows].all(1)]


def thumbnail(data: bytes) -> NDArray[np.uint8]:
    """Return the pixels that decide: a photo shrunk to uint8 [SIDE, SIDE, 3].

    Raises:
        PhotoError: The photo cannot be decoded.
    """
    pixels = photos.decode(data, min_side=4 * SIDE)
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _confirmed(small: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    crowded = np.bincount(rows.reshape(-1))[rows].min(1) >= _CROWD
    same = np.empty(len(rows), bool)
    for start in range(0, len(rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        difference = small[rows[part, 0]].astype(np.float32) - small[rows[part, 1]]
        rms = np.sqrt((difference**2).mean((1, 2, 3)))
        peak = np.abs(difference).max((1, 2, 3))
        same[part] = (rms <= np.where(crowded[part], _CROWD_RMS, _RMS)) & (
            peak <= np.where(crowded[part], _CROWD_PEAK, _PEAK)
        )
    return same


def near_duplicates(hashes: NDArray[np.uint64], distance: int = MAX_DISTANCE) -> Pairs:
    """Find the pairs of hashes that differ in at most `distance` bits; 0 matches nothing.

    Cut into d + 3 bands, two hashes within d bits agree on at least three of them (pigeonhole: Norouzi et al.,
    multi-index hashing, 2012), so only photos that share three bands are compared: 5 million pairs of 100,000
    different photos, not 5 billion. Equal hashes are paired with the first of their kind only, and with the one
    before.
    """
    known = np.flatnonzero(hashes)
    unique, first, inverse = np.unique(hashes[known], return_index=True, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    again = np.flatnonzero(inverse[order][1:] == inverse[order][:-1])
    later, before = order[again + 1], order[again]
    close = first[_close_pairs(unique, distance)]
    pairs = np.concatenate((
        np.stack((first[inverse[later]], later), 1), np.stack((before, later), 1), close,
    ))  # fmt: skip
    pairs = known[pairs]
    # As one number each, which sorts in less memory than rows do.
    count = len(hashes)
    numbers = np.unique(pairs.min(1) * count + pairs.max(1))
    return np.stack((numbers // max(1, count), numbers % max(1, count)), 1)


def _close_pairs(unique: NDArray[np.uint64], distance: int) -> NDArray[np.int64]:
    """Return indices [n, 2] of close hashes; not all of them where there are very many per photo."""
    count = len(unique)
    limit = max(_FEW_PAIRS, _PAIRS_PER_PHOTO * count)
    found = np.empty(0, np.int64)
    edges = np.linspace(0, HASH_BITS, distance + _SHARED + 1).astype(int).tolist()
    bands = [((1 << (high - low)) - 1) << low for low, high in pairwise(edges)]
    for shared in combinations(bands, _SHARED):
        part = unique & np.uint64(sum(shared))
        order = np.argsort(part)
        part = part[order]
        step, at, fresh = 1, np.flatnonzero(part[1:] == part[:-1]), 0
        parts = [found]
        # Neighbors in the order of the shared bits, then neighbors' neighbors, while there are any with the same.
        while at.size and fresh <= limit:
            left, right = order[at], order[at + step]
            close = np.bitwise_count(unique[left] ^ unique[right]) <= distance
            low, high = np.minimum(left[close], right[close]), np.maximum(left[close], right[close])
            parts.append(low * count + high)
            fresh += len(low)
            step += 1
            at = at[at < len(part) - step]
            at = at[part[at + step] == part[at]]
        if fresh:
            found = np.unique(np.concatenate(parts))
        if len(found) > limit:
            break
    return np.stack((found // max(1, count), found % max(1, count)), 1)
