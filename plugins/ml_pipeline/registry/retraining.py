"""Decide whether there is a reason to train again."""

from __future__ import annotations

from dataclasses import dataclass

from ml_pipeline.registry.packages import Package
from ml_pipeline.requests.types import Uploaded


@dataclass(frozen=True)
class Decision:
    """The decision, and its reason in one line."""

    train: bool
    reason: str


def decide(dataset: Uploaded, champion: Package | None, force: bool) -> Decision:
    """Train when the photos differ from those that the champion was trained on.

    Args:
        dataset: Result of upload.
        champion: The newest approved model, or None.
        force: Train in any case.
    """
    version = dataset["version"]
    if force:
        return Decision(True, f"force: training on version {version} in any case")
    if champion is None:
        return Decision(True, f"version {version} of {dataset['name']} has no approved model yet")
    trained_on = champion.metadata.get("dataset_version")
    if trained_on == version:
        return Decision(
            False,
            f"nothing to do: {champion.arn} was trained on this version, {version} of {dataset['name']}; set force to "
            "train again",
        )
    return Decision(True, f"the photos changed: version {version} after {trained_on}")
