"""Near-duplicate photos: pairs of 64-bit perceptual hashes that differ in few bits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

HASH_BITS = 64
# Measured on Stanford Dogs: re-encoding and resizing move the hash by 0-6 bits, cropping 2 % off each side
# by 5-10; among 72 million pairs of different photos the first look-alikes appear at 10 bits.
MAX_DISTANCE = 8
# Bands that a pair must share. With fewer, comparisons grow with the square of the photos from 100,000 on; with more,
# there are more ways to choose them than pays.
_SHARED = 3


def near_duplicates(hashes: Sequence[int | None], distance: int = MAX_DISTANCE) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of hashes that differ in at most `distance` bits; None is like nothing.

    Cut into d + 3 bands, two hashes within d bits agree on at least three of them (pigeonhole: Norouzi et al.,
    multi-index hashing, 2012), so only photos that share three bands are compared: 5 million pairs of 100,000
    different photos, not 5 billion. Equal hashes are paired with the first of their kind only.
    """
    known = [index for index, value in enumerate(hashes) if value is not None]
    values = np.array([hashes[index] for index in known], np.uint64)
    unique, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    pairs = {
        _ordered(known[int(first[group])], known[position])
        for position, group in enumerate(inverse)
        if int(first[group]) != position
    }
    for left, right in _close_pairs(unique, distance):
        pairs.add(_ordered(known[int(first[left])], known[int(first[right])]))
    return sorted(pairs)


def _close_pairs(unique: NDArray[np.uint64], distance: int) -> list[tuple[int, int]]:
    found: set[tuple[int, int]] = set()
    edges = np.linspace(0, HASH_BITS, distance + _SHARED + 1).astype(int).tolist()
    bands = [((1 << (high - low)) - 1) << low for low, high in pairwise(edges)]
    for shared in combinations(bands, _SHARED):
        part = unique & np.uint64(sum(shared))
        order = np.argsort(part)
        part = part[order]
        step, at = 1, np.flatnonzero(part[1:] == part[:-1])
        # Neighbours in the order of the shared bits, then neighbours' neighbours, while there are any with the same.
        while at.size:
            left, right = order[at], order[at + step]
            close = np.bitwise_count(unique[left] ^ unique[right]) <= distance
            found.update(map(_ordered, left[close].tolist(), right[close].tolist()))
            step += 1
            at = at[at < len(part) - step]
            at = at[part[at + step] == part[at]]
    return sorted(found)


def _ordered(one: int, other: int) -> tuple[int, int]:
    return (one, other) if one < other else (other, one)
