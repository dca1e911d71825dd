"""A layer over an image's interpreter, into which a job's own `pip install` writes: the interpreter is read-only.

A container's python can be written to, and the SageMaker SDK counts on it: its training and processing scripts run
`python3 -m pip install -r requirements.txt`. The layer is a virtual environment in /opt/ml, first on the PATH, that
sees the image's packages. pip takes those as installed, and a version that it installs comes before the image's.
"""

from __future__ import annotations

import functools
import json
import subprocess
from pathlib import Path

LAYER = "python"
PACKAGES = "packages"
"""The layer's site-packages, which every interpreter of the job has on its PYTHONPATH."""
_QUESTION = (
    "import json, platform, site, sys; "
    "print(json.dumps([sys._base_executable, platform.python_version(), site.getsitepackages()]))"
)
_PIP = '#!/bin/sh\nexec "$(dirname "$0")/python3" -m pip "$@"\n'


@functools.cache
def _asked(interpreter: str) -> tuple[str, str, tuple[str, ...]]:
    """Return an interpreter's base executable, version and site-packages; asked once per process."""
    found = subprocess.run([interpreter, "-I", "-c", _QUESTION], capture_output=True, timeout=60, check=True)
    base, version, folders = json.loads(found.stdout)
    return str(Path(base).resolve()), version, tuple(folders)


def install(folder: Path, interpreter: str) -> None:
    """Write the layer into `folder`, a job's /opt/ml."""
    base, version, image_packages = _asked(interpreter)
    short = ".".join(version.split(".")[:2])
    packages, layer = folder / PACKAGES, folder / LAYER
    packages.mkdir(exist_ok=True)
    # A line of a .pth file that begins with `import` is executed; the image's own .pth files are read, too.
    (packages / "_image.pth").write_text(f"import site; list(map(site.addsitedir, {image_packages!r}))\n")
    if layer.exists():
        return
    (layer / "bin").mkdir(parents=True)
    (layer / "pyvenv.cfg").write_text(
        f"home = {Path(base).parent}\ninclude-system-site-packages = false\nversion = {version}\n"
    )
    for name in ("python", "python3", f"python{short}"):
        (layer / "bin" / name).symlink_to(base)
    for name in ("pip", "pip3"):
        (layer / "bin" / name).write_text(_PIP)
        (layer / "bin" / name).chmod(0o755)
    (layer / f"lib/python{short}").mkdir(parents=True)
    (layer / f"lib/python{short}/site-packages").symlink_to(Path("../../..", PACKAGES))
