"""Made-up manifests: valid, but and their shards do not exist."""

from __future__ import annotations

from collections.abc import Sequence

from model_code.data.manifest import Manifest, ShardRow
from model_code.data.records import Fractions
from model_code.data.shards import Split


def manifest(
    name: str, shards: Sequence[tuple[str, str, int]], classes: tuple[str, ...] = ("a", "b")
) -> Manifest:
    """A manifest of `shards`, each given as (sha256, split, photos); every class has two photos per split."""
    return Manifest(
        name=name,
        parent=None,
        seed=0,
        fractions=Fractions(),
        classes=classes,
        counts={split.value: dict.fromkeys(classes, 2) for split in Split},
        shards=tuple(
            ShardRow(sha256, f"datasets/{name}/shards/{sha256}.tar", Split(split), photos, 10)
            for sha256, split, photos in shards
        ),
        photos_sha256="4" * 64,
        rejected=(),
    )
