"""Reviewed photos of an endpoint's traffic: for training, and they stay there.

One whose hash, or whose picture, has a split already keeps that. A photo that shows the same picture as a test or
validation photo is left out: reviews never change the split that compares with the champion.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model_code.data.duplicates import Neighbors, Pairs
from model_code.data.records import Rejected
from model_code.data.shards import Split
from model_code.data.versions.columns import SPLITS, Photos, Splits

FOLDER = "reviewed/"
"""Begins the paths of reviewed photos, next to those of the source."""


@dataclass(frozen=True)
class Joined:
    """The positions of reviewed photos that have no split yet, and those left out, with reasons."""

    training: list[int]
    rejected: dict[int, Rejected]


def for_training(photos: Photos, pairs: Pairs, known: Splits) -> Joined:
    """Put reviewed photos into training, without their look-alikes of the test and validation splits.

    Args:
        photos: The photos of the new version, reviewed ones included.
        pairs: Indices of photos that show the same picture.
        known: Splits by SHA-256 of the parent version.
    """
    codes = known.find(photos.digests)
    fresh = [at for at in np.flatnonzero(codes < 0).tolist() if photos.path(at).startswith(FOLDER)]
    if not fresh:
        return Joined([], {})
    neighbors = Neighbors(pairs, len(photos))
    out: dict[int, Rejected] = {}
    for at in fresh:
        near = {SPLITS[code] for code in codes[neighbors.of(at)].tolist() if code >= 0}
        if others := near - {Split.TRAIN}:
            names = " and ".join(sorted(others))
            out[at] = Rejected(photos.path(at), f"shows the same picture as photos of {names}")
    return Joined([at for at in fresh if at not in out], out)
