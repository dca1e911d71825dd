"""Names of timm's models (`timm:<name>`) and the photos that they expect. Standard library only: Airflow reads it."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

TIMM = "timm:"
"""Begins the name of an architecture of timm; other names are torchvision's."""


@dataclass(frozen=True)
class Recipe:
    """A model's input: side of the square in pixels, resampling kernel, mean and deviation per channel of 0..1."""

    side: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@cache
def _recipes() -> dict[str, Recipe]:
    rows: list[dict[str, Any]] = json.loads(Path(__file__).with_name("timm.json").read_text())
    return {
        name: Recipe(row["side"], row["interpolation"], tuple(row["mean"]), tuple(row["std"]))
        for row in rows
        for name in row["names"].split()
    }


def timm_recipe(architecture: str) -> Recipe:
    """Return the input of `timm:<name>`.

    Raises:
        ValueError: timm has no such model; the message names the nearest ones.
    """
    known = _recipes()
    name = architecture.removeprefix(TIMM)
    if name not in known:
        near = difflib.get_close_matches(name, known, 3) or [
            "tf_efficientnet_lite0",
            "resnet18",
            "convnext_atto",
        ]
        raise ValueError(
            f"timm has no model {name!r}; did you mean {' or '.join(TIMM + match for match in near)}?"
        )
    return known[name]
