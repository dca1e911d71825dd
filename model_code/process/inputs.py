"""Optional inputs. A missing input is an error if a user named it, never silently ignored."""

from __future__ import annotations

import argparse
from pathlib import Path


def optional(arguments: argparse.Namespace, parser: argparse.ArgumentParser, name: str) -> Path | None:
    """Return the path of input `name`; None where it is the parser's default (SageMaker's path) and nothing is there.

    Raises:
        FileNotFoundError: It is another path, and nothing is there.
    """
    path: Path = getattr(arguments, name)
    if path.exists():
        return path
    if path != parser.get_default(name):
        raise FileNotFoundError(f"no {name} at {path}; give a path that exists, or leave --{name} out")
    return None
