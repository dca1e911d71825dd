"""Whether there is a reason to train again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ml_pipeline.registry.packages import Package


@dataclass(frozen=True)
class Decision:
    """Train or not, and why, in one line."""

    train: bool
    reason: str


def decide(dataset: Mapping[str, Any], champion: Package | None, force: bool) -> Decision:
    """Train when the photos are others than those the champion was trained on.

    Args:
        dataset: What the upload task returned.
        champion: The model in service, or None.
        force: Train whatever the photos.
    """
    version = dataset["version"]
    if force:
        return Decision(True, f"force: training on version {version} whatever it holds")
    if champion is None:
        return Decision(True, f"version {version} of {dataset['name']} has no approved model yet")
    trained_on = champion.metadata.get("dataset_version")
    if trained_on == version:
        return Decision(
            False,
            f"nothing to do: version {version} of {dataset['name']} is what {champion.arn} was trained on",
        )
    return Decision(True, f"the photos changed: version {version} after {trained_on}")
