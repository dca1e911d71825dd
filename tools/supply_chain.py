"""List what the project is made of, and look for known vulnerabilities: `make sbom`, `make audit`.

Both tools run in an environment of their own, so that they neither need nor change what they look at.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SBOM = ROOT / "dist" / "sbom.cdx.json"
CYCLONEDX, PIP_AUDIT = "cyclonedx-bom==7.5.0", "pip-audit==2.10.1"


def sbom(environment: Path, target: Path) -> None:
    """Write a CycloneDX document about the packages of a virtual environment: versions, licenses, dependencies."""
    target.parent.mkdir(parents=True, exist_ok=True)
    python = environment / "bin" / "python"
    project = ROOT / "pyproject.toml"
    run(
        *(CYCLONEDX, "cyclonedx-py", "environment", "--pyproject", project, "--output-reproducible"),
        *("--output-format", "JSON", "--output-file", target, python),
    )
    components = json.loads(target.read_text())["components"]
    print(f"wrote {target}: {len(components)} packages")


def audit(lock: Path, *options: str) -> int:
    """Print the known vulnerabilities of a lock's pins; return 1 if there are any, 2 if pins could not be looked up.

    Args:
        lock: A requirements file in which every package is pinned.
        options: Further options of pip-audit, such as another service to ask.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "audit.json"
        try:
            said = run(
                *(PIP_AUDIT, "pip-audit", "--requirement", lock, "--disable-pip", "--progress-spinner=off"),
                *("--format", "json", "--output", found, *options),
                may_fail=True,
            )
        except subprocess.CalledProcessError:
            print(f"{PIP_AUDIT} cannot be installed: is PyPI in reach?", file=sys.stderr)
            return 2
        if not found.is_file():
            why = said.strip().splitlines()
            print(f"the advisories cannot be read: {why[-1] if why else 'no answer'}", file=sys.stderr)
            return 2
        lines, code = verdict(json.loads(found.read_text()))
    print("\n".join(lines))
    return code


def verdict(report: Mapping[str, Any]) -> tuple[list[str], int]:
    """Return what to print about pip-audit's report, and the exit code of `audit`.

    pip-audit itself succeeds where it could look up nothing.
    """
    pins = report["dependencies"]
    skipped = [pin["name"] for pin in pins if "skip_reason" in pin]
    lines = [
        f"{pin['name']} {pin['version']}: {found['id']}, fixed in {', '.join(found['fix_versions']) or 'no release'}"
        for pin in pins
        for found in pin.get("vulns", ())
    ]
    vulnerable = bool(lines)
    lines.append(f"{len(pins) - len(skipped)} of {len(pins)} packages were looked up")
    if pins and len(skipped) == len(pins):
        lines.append(
            "the advisories of pypi.org cannot be reached from here, or only through a mirror without them"
        )
    elif skipped:
        lines.append(f"not found at pypi.org: {', '.join(skipped[:10])}{' ...' if len(skipped) > 10 else ''}")
    return lines, 1 if vulnerable else 2 if skipped else 0


def run(requirement: str, program: str, *arguments: object, may_fail: bool = False) -> str:
    """Run a program of a package from PyPI, and return what it wrote to stderr."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        binaries = Path(folder) / "bin"
        subprocess.run([binaries / "python", "-m", "pip", "install", "--quiet", requirement], check=True)
        argv = [str(binaries / program), *map(str, arguments)]
        done = subprocess.run(argv, check=False, stderr=subprocess.PIPE, text=True)
        if not may_fail:
            print(done.stderr, end="", file=sys.stderr)
            done.check_returncode()
        return done.stderr


def main() -> int:
    """Run the command; the exit code is that of `audit`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["sbom", "audit"])
    if parser.parse_args().command == "audit":
        return audit(ROOT / "requirements.lock")
    sbom(Path(sys.prefix), SBOM)
    return 0


if __name__ == "__main__":
    sys.exit(main())
