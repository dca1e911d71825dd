"""Near-duplicate photos: pairs of 64-bit perceptual hashes that differ in few bits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

HASH_BITS = 64
# Measured on Stanford Dogs: re-encoding and resizing move the hash by 0-6 bits, cropping 2 % off each side
# by 5-10; among 72 million pairs of different photos the first look-alikes appear at 10 bits.
MAX_DISTANCE = 8


def near_duplicates(hashes: Sequence[int | None], distance: int = MAX_DISTANCE) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of hashes that differ in at most `distance` bits; None is like nothing.

    Two hashes within d bits agree on at least one of d + 1 bands (pigeonhole: Norouzi et al., multi-index
    hashing, 2012), so only photos that share a band are compared. Equal hashes are paired with the first of
    their kind only.
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
    edges = np.linspace(0, HASH_BITS, distance + 2).astype(int)
    for low, high in pairwise(edges):
        band = (unique >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(band, kind="stable")
        band = band[order]
        step = 1
        # Neighbours in band order, then neighbours' neighbours, while any band still has that many members.
        while (same := np.flatnonzero(band[step:] == band[:-step])).size:
            left, right = order[same], order[same + step]
            close = np.bitwise_count(unique[left] ^ unique[right]) <= distance
            found.update(zip(left[close].tolist(), right[close].tolist(), strict=True))
            step += 1
    return sorted(found)


def _ordered(one: int, other: int) -> tuple[int, int]:
    return (one, other) if one < other else (other, one)
