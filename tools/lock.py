"""Resolve requirements*.in into requirements.lock, requirements-cuda.lock and docker/*/packages.txt: `make lock`.

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
# What the serving image imports and the notebooks need; the Airflow image has requirements.in without what no service
# imports.
SERVING = ("httptools", "numpy", "onnxruntime", "pi-heif", "pillow", "safetensors", "simplejpeg")
NOTEBOOK = ("jupyterlab", "matplotlib", "sagemaker")
NOT_IN_AIRFLOW = ("sagemaker",)
LISTS = {
    "airflow": "# Closure of requirements.in without its extras (the SageMaker SDK): written by make lock.\n",
    "notebook": "# Closure of what the notebooks need, much of which the Airflow image has: written by make lock.\n",
    "serving": "# Closure of what model_code.serve imports, on ONNX Runtime: written by make lock.\n",
}
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


def resolve(uv: Path, python: str, preferences: str, upgrade: bool, requirements: str) -> dict[str, Pin]:
    """Run uv for one Python.

    Raises:
        SystemExit: There is no solution; uv's reason has been printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, source = Path(folder, "lock"), Path(folder, "requirements.in")
        out.write_text(preferences)
        source.write_text(requirements)
        argv = [str(uv), "pip", "compile", "--quiet", "--generate-hashes", "--no-header", "--no-annotate"]
        argv += ["--python-version", python, "--python-platform", "x86_64-manylinux_2_28", "-o", str(out)]
        argv += ["--upgrade"] if upgrade else []
        if subprocess.call([*argv, str(source)]) != 0:
            sys.exit(f"error: no solution for Python {python}; uv's reason is above")
        return parse(out.read_text())


def image_requirements(requirements: str) -> dict[str, str]:
    """Return what each image of LISTS needs directly, as requirement lines; `requirements` is requirements.in."""
    lines = requirements.splitlines()
    kept = [line for line in lines if re.split(r"[\[=<>!~; ]", line)[0] not in NOT_IN_AIRFLOW]
    asked = {"airflow": kept, "notebook": NOTEBOOK, "serving": SERVING}
    return {image: "\n".join(names) + "\n" for image, names in asked.items()}


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
        uv = Path(folder, "bin/uv")
        sources = [(ROOT / name).read_text() for name in ("requirements.in", "requirements-dev.in")]
        resolved = {
            python: resolve(uv, python, preferences(known, text, python), chosen.upgrade, "".join(sources))
            for python in PYTHONS
        }
        # The images have the oldest Python.
        locked = "".join(f"{name}=={pin.version}\n" for name, pin in resolved[PYTHONS[0]].items())
        for image, requirements in image_requirements(sources[0]).items():
            needed = resolve(uv, PYTHONS[0], locked, False, requirements)
            names = [name for name in sorted(needed) if not CUDA.match(name)]
            (ROOT / "docker" / image / "packages.txt").write_text(LISTS[image] + "\n".join(names) + "\n")
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
