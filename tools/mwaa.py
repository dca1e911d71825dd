"""Build what MWAA takes: `python -m tools.mwaa [FOLDER]` writes plugins.zip, requirements.txt and dags.zip.

The wheels travel inside plugins.zip, which MWAA unpacks to /usr/local/airflow/plugins before it installs
requirements.txt: no package index is asked for ours. The zips hold no time stamps: equal code, equal files.
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from tools import wheels

ROOT = wheels.ROOT
PLUGINS = "/usr/local/airflow/plugins"
LARGEST_BYTES = 10_000_000
_EPOCH = (1980, 1, 1, 0, 0, 0)


def requirements(names: Iterable[str]) -> str:
    """Return requirements.txt for wheels of these names; MWAA adds the constraints of its image."""
    return "".join(f"{PLUGINS}/{name}\n" for name in sorted(names))


def pack(target: Path, files: Iterable[Path]) -> None:
    """Write a zip of `files` without their folders.

    Raises:
        SystemExit: It is larger than LARGEST_BYTES.
    """
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(files):
            archive.writestr(zipfile.ZipInfo(path.name, _EPOCH), path.read_bytes(), zipfile.ZIP_DEFLATED)
    if target.stat().st_size > LARGEST_BYTES:
        sys.exit(
            f"error: {target} has {target.stat().st_size / 1e6:.1f} MB, more than {LARGEST_BYTES / 1e6:.0f} MB"
        )


def build(target: Path) -> list[Path]:
    """Write the three files into `target`; return their paths."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        made = [path for path in wheels.build(Path(folder)) if not path.name.startswith("local_aws")]
        pack(target / "plugins.zip", made)
        (target / "requirements.txt").write_text(requirements(path.name for path in made))
    pack(target / "dags.zip", (path for path in (ROOT / "dags").glob("*.py") if path.name != "__main__.py"))
    return [target / name for name in ("plugins.zip", "requirements.txt", "dags.zip")]


def main(arguments: Sequence[str]) -> int:
    """Build into the folder of the first argument, by default dist/mwaa."""
    for path in build(Path(arguments[0]) if arguments else ROOT / "dist" / "mwaa"):
        print(f"{path}  {path.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
