"""Locates the inputs of measurements: `../shared`, or the folder named by ML_PIPELINE_SHARED."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(os.environ.get("ML_PIPELINE_SHARED") or Path(__file__).resolve().parent.parent.parent / "shared")


def shared(path: str) -> Path:
    """The path of a measurement's input (existing or not)."""
    return ROOT / path


def need(*paths: Path) -> None:
    """Leave with one clear line when an input is missing."""
    for path in paths:
        if not path.exists():
            sys.exit(f"{path} is missing: name your own with --data and --weights, or set ML_PIPELINE_SHARED")
