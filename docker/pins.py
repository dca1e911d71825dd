"""Prints the entries of requirements.lock that an image installs: each gets the tested version, with its hashes.

    pins.py safetensors onnx                     just these packages
    pins.py --list docker/airflow/packages.txt   the packages that a file names, one a line
    pins.py --without torch --list FILE          all of them but torch

Standard library only: it runs in an image before anything is installed.
"""

from __future__ import annotations

import argparse
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


def entries(lock: str) -> dict[str, str]:
    """Return the entries of a lock by normalized name, each with its marker and hashes; two markers, two entries."""
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=[A-Za-z0-9])", lock):
        if re.match(r"[A-Za-z0-9._-]+==", entry):
            name = normalized(entry)
            found[name] = f"{found[name]}\n{entry.strip()}" if name in found else entry.strip()
    return found


def pins(lock: str, names: Sequence[str]) -> list[str]:
    """Return the entries of the lock for `names`, in that order.

    Raises:
        PinError: A name is not in the lock.
    """
    by_name = entries(lock)
    missing = [name for name in names if normalized(name) not in by_name]
    if missing:
        raise PinError(
            f"not in requirements.lock: {', '.join(missing)}; add them to requirements.in and run make lock"
        )
    return [by_name[normalized(name)] for name in names]


def main(arguments: Sequence[str]) -> int:
    """Print the pins; return 1 with one line on stderr when a name has none."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*")
    parser.add_argument("--list", type=Path, help="a file with further names")
    parser.add_argument("--without", action="append", default=[], metavar="NAME")
    chosen = parser.parse_args(arguments)
    names = [*chosen.names, *(requirements(chosen.list.read_text()) if chosen.list else [])]
    try:
        wanted = [name for name in names if normalized(name) not in chosen.without]
        print("\n".join(pins((ROOT / "requirements.lock").read_text(), wanted)))
    except PinError as error:
        print(f"pins.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
