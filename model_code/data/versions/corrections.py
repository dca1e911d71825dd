"""Decisions about photos, applied to what was found at a source: other classes, and photos that are left out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from model_code.data.records import Photo, Rejected, hidden
from model_code.data.versions.columns import Photos, hex_of
from model_code.data.versions.make import Correct, Corrected


class Decision(NamedTuple):
    """A decision about a photo: its class, or the reason why it is left out."""

    label: str | None
    reason: str | None = None


def correct(decisions: Mapping[str, Decision], forgotten: Collection[str] = ()) -> Correct:
    """Return the step that takes forgotten photos out and applies decisions by SHA-256.

    Args:
        decisions: Those that say what the source says do not count.
        forgotten: See `hidden`.
    """

    def apply(photos: Photos) -> Corrected:
        kept, out = without_forgotten(photos, forgotten)
        labels: dict[int, str] = {}
        rejected: dict[int, Rejected] = {}
        for at in kept.places(decisions):
            photo = kept[at]
            label, reason = decisions[photo.sha256]
            if reason is not None:
                rejected[at] = Rejected(photo.path, reason)
            elif label not in (None, photo.label):
                labels[at] = str(label)
        corrected = kept.relabeled(labels).without(rejected)
        return Corrected(corrected, [*out, *rejected.values()], len(labels) + len(rejected))

    return apply


def without_forgotten(photos: Sequence[Photo], gone: Collection[str]) -> tuple[Photos, list[Rejected]]:
    """Return photos without those that were forgotten, and these as left out."""
    table = Photos.of(photos)
    out = [at for at, digest in enumerate(table.digests) if hidden(hex_of(digest)) in gone] if gone else []
    reason = "forgotten on request; take it out of the source"
    return table.without(out), [Rejected(table.path(at), reason) for at in out]
