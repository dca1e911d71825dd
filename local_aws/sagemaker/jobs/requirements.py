"""requirements.txt of a job's code: installs what the image lacks, before the script runs.

Packages go to a folder of the job, never into the image's interpreter, which other jobs share.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 900


class InstallFailed(Exception):
    """pip failed; the text ends with its last lines."""


def install(
    interpreter: str, requirements: Path, target: Path, offline: bool, log: Callable[[bytes], None]
) -> bool:
    """Install the missing requirements into `target`.

    Args:
        interpreter: The image's python.
        requirements: The requirements.txt.
        target: Folder for the packages.
        offline: Network isolation: only installed packages satisfy a requirement.
        log: Receives pip's output.

    Returns:
        True when anything was installed.

    Raises:
        InstallFailed: pip failed.
    """
    options = ["--no-index"] if offline else []
    pip = [interpreter, "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
    plan = _run(
        [*pip, "--quiet", "--dry-run", "--report", "-", *options, "-r", str(requirements)],
        requirements.parent,
    )
    missing = [_pinned(entry) for entry in json.loads(plan)["install"]]
    if not missing:
        return False
    log(f"installing {', '.join(missing)}".encode())
    # Resolved already: without --no-deps pip would install again what the image has.
    output = _run([*pip, *options, "--no-deps", "--target", str(target), *missing], requirements.parent)
    for line in output.splitlines():
        log(line.encode())
    return True


def _pinned(entry: dict[str, Any]) -> str:
    """Turn one package of pip's report into a requirement: its direct URL where it has one, else its version."""
    metadata = entry["metadata"]
    if entry.get("is_direct"):
        return f"{metadata['name']} @ {entry['download_info']['url']}"
    return f"{metadata['name']}=={metadata['version']}"


def _run(argv: list[str], cwd: Path) -> str:
    try:
        done = subprocess.run(
            argv, cwd=cwd, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise InstallFailed(f"pip took longer than {TIMEOUT_SECONDS} s") from error
    if done.returncode != 0:
        raise InstallFailed("\n".join(done.stderr.strip().splitlines()[-10:]))
    return done.stdout
