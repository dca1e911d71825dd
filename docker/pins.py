"""Prints the lines of requirements.lock that an image installs: each gets the versions that were tested.

    pins.py                    the whole lock, less what only development needs (requirements-dev.in)
    pins.py safetensors onnx   just these packages

Standard library only: it runs in an image before anything is installed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class PinError(ValueError):
    """A package has no version in the lock."""


def normalized(requirement: str) -> str:
    """Return the normalized name of a requirement line (PEP 503): "moto[s3]==5.2" -> "moto"."""
    name = re.split(r"[\[=<>!~; ]", requirement.strip(), maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(text: str) -> list[str]:
    """Return the requirement lines of a file, without comments and blanks."""
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def pins(lock: str, development: str, names: Sequence[str]) -> list[str]:
    """Return the lines of the lock for `names`, in that order; with no names, all but the development ones.

    Raises:
        PinError: A name is not in the lock.
    """
    by_name = {normalized(line): line for line in requirements(lock)}
    if not names:
        unwanted = {normalized(line) for line in requirements(development)}
        return [line for name, line in by_name.items() if name not in unwanted]
    missing = [name for name in names if normalized(name) not in by_name]
    if missing:
        raise PinError(
            f"not in requirements.lock: {', '.join(missing)}; add them to requirements.in and run make lock"
        )
    return [by_name[normalized(name)] for name in names]


def main(names: Sequence[str]) -> int:
    """Print the pins; return 1 with one line on stderr when a name has none."""
    lock, development = ((ROOT / name).read_text() for name in ("requirements.lock", "requirements-dev.in"))
    try:
        print("\n".join(pins(lock, development, names)))
    except PinError as error:
        print(f"pins.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
