"""Resolve requirements*.in into requirements.lock and requirements-cuda.lock: `make lock`.

uv resolves once for each supported Python; a package that only some of them need gets a marker. Every line carries the
SHA-256 of each file of its release, so that pip refuses anything else. CUDA's libraries, which only torch's CUDA
build needs, have a file of their own. Versions of the present lock are kept where they still fit; `--upgrade` takes
the newest.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV = "uv==0.13.9"
PYTHONS = ("3.11", "3.12", "3.13")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CUDA = re.compile(r"^(nvidia-|cuda-|triton$)")
HEADER = "# Resolved by `make lock` from requirements.in and requirements-dev.in. Do not edit.\n"
_ENTRY = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
_HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")


@dataclass(frozen=True)
class Pin:
    """One release: version and the digests of its files."""

    version: str
    hashes: frozenset[str]


def parse(lock: str) -> dict[str, Pin]:
    """Return the pins of a requirements file by normalized name."""
    found = {}
    for entry in re.split(r"\n(?=[A-Za-z0-9])", lock):
        match = _ENTRY.match(entry)
        if match:
            name = re.sub(r"[-_.]+", "-", match[1]).lower()
            found[name] = Pin(match[2], frozenset(_HASH.findall(entry)))
    return found


def merge(by_python: Mapping[str, Mapping[str, Pin]]) -> str:
    """Return one requirements file for several Pythons: a marker on each pin that not all of them share."""
    lines = []
    for name in sorted({name for pins in by_python.values() for name in pins}):
        versions: dict[Pin, list[str]] = {}
        for python, pins in by_python.items():
            if name in pins:
                versions.setdefault(pins[name], []).append(python)
        for pin, pythons in versions.items():
            entry = f"{name}=={pin.version}"
            if len(pythons) < len(by_python):
                entry += " ; " + " or ".join(f'python_version == "{python}"' for python in pythons)
            lines.append(" \\\n    ".join([entry, *(f"--hash={digest}" for digest in sorted(pin.hashes))]))
    return "\n".join(lines) + "\n"


def cpu_hashes(page: str, version: str) -> frozenset[str]:
    """Return the digests of a release's files on an index page of PyTorch's."""
    pattern = rf"torch-{re.escape(version)}(?:%2B|\+)cpu-[^#\"]*#sha256=([0-9a-f]{{64}})"
    return frozenset(f"sha256:{digest}" for digest in re.findall(pattern, page))


def resolve(uv: Path, python: str, preferences: str, upgrade: bool) -> dict[str, Pin]:
    """Run uv for one Python.

    Raises:
        SystemExit: There is no solution; uv's reason has been printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "lock")
        out.write_text(preferences)
        argv = [str(uv), "pip", "compile", "--quiet", "--generate-hashes", "--no-header", "--no-annotate"]
        argv += ["--python-version", python, "--python-platform", "x86_64-manylinux_2_28", "-o", str(out)]
        argv += ["--upgrade"] if upgrade else []
        sources = [str(ROOT / "requirements.in"), str(ROOT / "requirements-dev.in")]
        if subprocess.call(argv + sources) != 0:
            sys.exit(f"error: no solution for Python {python}; uv's reason is above")
        return parse(out.read_text())


def preferences(pins: Mapping[str, Pin], lock: str, python: str) -> str:
    """Return the present pins that apply to a Python, as uv reads them."""
    lines = []
    for name, pin in pins.items():
        entry = re.search(rf"^{re.escape(name)}=={re.escape(pin.version)} ; (.*?) \\?$", lock, re.MULTILINE)
        if entry is None or f'"{python}"' in entry[1]:
            lines.append(f"{name}=={pin.version}")
    return "\n".join(lines) + "\n"


def with_cpu_build(pins: dict[str, Pin], known: Pin | None) -> dict[str, Pin]:
    """Add the digests of torch's CPU builds, from PyTorch's index or, without it, from the present lock."""
    torch = pins["torch"]
    try:
        with urllib.request.urlopen(f"{CPU_INDEX}/torch/", timeout=20) as answer:
            found = cpu_hashes(answer.read().decode(), torch.version)
    except OSError as error:
        print(f"{CPU_INDEX} cannot be reached ({error}): keeping the digests of the present lock")
        found = known.hashes if known and known.version == torch.version else frozenset()
    return {**pins, "torch": Pin(torch.version, torch.hashes | found)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write both locks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that fit together")
    chosen = parser.parse_args(arguments)
    path = ROOT / "requirements.lock"
    text = path.read_text()
    known = parse(text)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([f"{folder}/bin/pip", "install", "--quiet", UV], check=True)
        resolved = {
            python: resolve(Path(folder, "bin/uv"), python, preferences(known, text, python), chosen.upgrade)
            for python in PYTHONS
        }
    resolved = {python: with_cpu_build(pins, known.get("torch")) for python, pins in resolved.items()}
    for name, wanted in (("requirements.lock", False), ("requirements-cuda.lock", True)):
        part = {
            python: {name: pin for name, pin in pins.items() if bool(CUDA.match(name)) is wanted}
            for python, pins in resolved.items()
        }
        (ROOT / name).write_text(HEADER + merge(part))
    print(f"wrote {sum(len(pins) for pins in resolved.values()) // len(PYTHONS)} pins for each Python")
    return 0


if __name__ == "__main__":
    sys.exit(main())
