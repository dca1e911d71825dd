"""Build the wheels of the three distributions: `python -m tools.wheels [FOLDER]`, by default dist/."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DISTRIBUTIONS = ("model-code", "local-aws", "ml-pipeline")


def build(target: Path) -> list[Path]:
    """Build every wheel into `target`; return their paths.

    The sources are built in a copy, so that no build folder or egg-info is left in the tree.
    """
    target.mkdir(parents=True, exist_ok=True)
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    wheels = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("packages", "model_code", "local_aws", "plugins", "dags"):
            shutil.copytree(ROOT / name, Path(folder, name), ignore=ignore)
        for name in DISTRIBUTIONS:
            shutil.copy(ROOT / "LICENSE", Path(folder, "packages", name))
            argv = [
                sys.executable,
                "-m",
                "pip",
                "--disable-pip-version-check",
                "wheel",
                "--quiet",
                "--no-deps",
            ]
            argv += ["--no-build-isolation", "--wheel-dir", str(target), str(Path(folder, "packages", name))]
            subprocess.run(argv, check=True)
            wheels += target.glob(f"{name.replace('-', '_')}-*.whl")
    return wheels


def main(arguments: Sequence[str]) -> int:
    """Build into the folder of the first argument."""
    for wheel in build(Path(arguments[0]) if arguments else ROOT / "dist"):
        print(f"{wheel}  {wheel.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
