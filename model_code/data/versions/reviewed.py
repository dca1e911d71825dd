"""Reviewed photos of an endpoint's traffic: for training, and they stay there.

One whose hash, or whose picture, has a split already keeps that. A photo that shows the same picture as a test or
validation photo is left out: reviews never change the split that compares with the champion.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from model_code.data.duplicates import Pairs
from model_code.data.records import Photo, Rejected
from model_code.data.shards import Split

FOLDER = "reviewed/"
"""Begins the paths of reviewed photos, next to those of the source."""


@dataclass(frozen=True)
class Joined:
    """Splits by SHA-256 of reviewed photos that have none yet, and those left out."""

    splits: dict[str, Split]
    rejected: list[Rejected]


def for_training(
    photos: Sequence[Photo], pairs: Pairs, known: Mapping[str, Split]
) -> tuple[list[Photo], Pairs, Joined]:
    """Put reviewed photos into training, without their look-alikes of the test and validation splits.

    Args:
        photos: The photos of the new version, reviewed ones included.
        pairs: Indices of photos that show the same picture.
        known: Splits by SHA-256 of the parent version.

    Returns:
        Photos and pairs without those left out, and what became of the reviewed ones.
    """
    near: dict[int, set[Split]] = defaultdict(set)
    for one, other in pairs:
        for index, neighbor in ((one, other), (other, one)):
            if photos[neighbor].sha256 in known:
                near[index].add(known[photos[neighbor].sha256])
    splits: dict[str, Split] = {}
    out: dict[int, Rejected] = {}
    for index, photo in enumerate(photos):
        if not photo.path.startswith(FOLDER) or photo.sha256 in known:
            continue
        if near[index] - {Split.TRAIN}:
            names = " and ".join(sorted(near[index] - {Split.TRAIN}))
            out[index] = Rejected(photo.path, f"shows the same picture as photos of {names}")
        else:
            splits[photo.sha256] = Split.TRAIN
    place = {index: at for at, index in enumerate(i for i in range(len(photos)) if i not in out)}
    kept = [photo for index, photo in enumerate(photos) if index not in out]
    remaining = [(place[one], place[other]) for one, other in pairs if one in place and other in place]
    return kept, remaining, Joined(splits, list(out.values()))
