"""A virtual environment for the peers, which sees the project's packages (torch) and adds its own."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

_FOLDER = Path(__file__).resolve().parents[2] / ".run" / "bench" / "peers"
_REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def python() -> Path:
    """Its interpreter; created on the first call."""
    interpreter = _FOLDER / "bin" / "python"
    if not interpreter.exists():
        venv.create(_FOLDER, with_pip=True)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        ours = _FOLDER / "lib" / version / "site-packages" / "project.pth"
        ours.write_text(sysconfig.get_paths()["purelib"] + "\n")
    return interpreter


def install(package: str) -> str | None:
    """Install the pinned `package` if need be; why it cannot be, or None."""
    pinned = next(
        line
        for line in _REQUIREMENTS.read_text().splitlines()
        if line.partition("==")[0].partition("[")[0].strip() == package
    )
    module = package.replace("-", "_")
    interpreter = python()
    # From the root folder: the repository's own folders must not answer for a package.
    probe = [
        str(interpreter),
        "-c",
        f"import importlib.util as u, sys; sys.exit(u.find_spec('{module}') is None)",
    ]
    if subprocess.run(probe, cwd="/", check=False).returncode == 0:
        return None
    print(f"installing {pinned} for the comparison (once)", file=sys.stderr, flush=True)
    command = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", pinned]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or ["pip failed"])[-1][:200]
