"""Inputs that may be left out. One that a person named and that is not there is an error, never left out in silence."""

from __future__ import annotations

import argparse
from pathlib import Path


def optional(arguments: argparse.Namespace, parser: argparse.ArgumentParser, name: str) -> Path | None:
    """The path of input `name`; None where it is the parser's default, SageMaker's place for it, and nothing is there.

    :raises FileNotFoundError: when it is another path, and there is nothing.
    """
    path: Path = getattr(arguments, name)
    if path.exists():
        return path
    if path != parser.get_default(name):
        raise FileNotFoundError(f"no {name} at {path}; give a path that exists, or leave --{name} out")
    return None
