"""Podman for the tests: found or installed, with settings and storage of its own, so that no other image is touched."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PACKAGES = ("podman", "runc", "catatonit", "netavark", "aardvark-dns", "iptables", "mmdebstrap")
PROGRAMS = ("podman", "runc", "iptables", "mmdebstrap")
NEEDED_BYTES = 12_000_000_000
# Built once and kept between runs: about 8 GB with every layer.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ml-pipeline-containers"


@dataclass(frozen=True)
class Engine:
    """The command `podman` with the settings of `folder`."""

    folder: Path

    def environment(self) -> dict[str, str]:
        """Return the environment in which podman reads these settings and no others."""
        return {
            **os.environ,
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(self.folder / "registries.conf"),
            # Without systemd podman has no timer for health checks: the runner runs them.
            "DISABLE_HC_SYSTEMD": "true",
        }

    def run(
        self, *words: str | Path, check: bool = True, timeout: float = 600, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run podman with `words`. Raises AssertionError with what it wrote when it fails and `check` is true."""
        done = subprocess.run(
            ["podman", *map(str, words)], env=self.environment(), capture_output=True, text=True, timeout=timeout,
            **options,
        )  # fmt: skip
        wrote = f"podman {' '.join(map(str, words))}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        assert done.returncode == 0 or not check, wrote
        return done

    def inspect(self, kind: str, name: str) -> dict[str, Any]:
        """Return what podman knows about an image, a container or a volume."""
        described: list[dict[str, Any]] = json.loads(self.run(kind, "inspect", name).stdout)
        return described[0]

    def has(self, kind: str, name: str) -> bool:
        """Return true when an image, a container, a network or a volume of that name exists."""
        return self.run(kind, "exists", name, check=False).returncode == 0


def find() -> Engine:
    """Return an engine that starts containers; skip the test with the reason where none can be had."""
    if sys.platform != "linux" or os.getuid() != 0:
        pytest.skip("containers are tested by root on Linux: Podman needs no daemon there")
    if os.environ.get("CONTAINERS") == "0":
        pytest.skip("CONTAINERS=0 leaves the containers out")
    CACHE.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(CACHE).free < NEEDED_BYTES:
        pytest.skip(f"the images need {NEEDED_BYTES / 1e9:.0f} GB in {CACHE}: free some space")
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        _install(missing)
    engine = Engine(CACHE)
    for name, text in settings(CACHE).items():
        (CACHE / name).write_text(text)
    known = engine.run("info", check=False)
    if known.returncode != 0:
        pytest.skip(f"Podman does not work here: {known.stderr.strip().splitlines()[-1]}")
    return engine


def _install(missing: list[str]) -> None:
    apt = shutil.which("apt-get")
    if apt is None:
        pytest.skip(f"needs {', '.join(missing)}, and there is no apt-get that installs them")
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update", "-qq"], ["install", "-qq", "--yes", "--no-install-recommends", *PACKAGES]):
        done = subprocess.run([apt, *words], env=environ, capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            pytest.skip(f"apt-get {words[0]} failed: {done.stderr.strip().splitlines()[-1:]}")


def settings(folder: Path) -> dict[str, str]:
    """Return Podman's files of settings by name, as docs/deploying.md gives them, with storage in `folder`."""
    files, processes = (
        resource.getrlimit(kind)[1] for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC)
    )
    limits = [
        f"{name}={_within(limit)}:{_within(limit)}"
        for name, limit in (("nofile", files), ("nproc", processes))
    ]
    manager = "systemd" if Path("/run/systemd/system").is_dir() else "cgroupfs"
    return {
        "containers.conf": f"[containers]\ndefault_ulimits = {json.dumps(limits)}\n"
        f'[engine]\ncgroup_manager = "{manager}"\nruntime = "runc"\nevents_logger = "file"\n'
        f'[network]\nnetwork_backend = "netavark"\nnetwork_config_dir = "{folder / "networks"}"\n',
        "storage.conf": f'[storage]\ndriver = "overlay"\ngraphroot = "{folder / "storage"}"\n'
        f'runroot = "/run/{folder.name}"\n',
        "registries.conf": 'unqualified-search-registries = ["docker.io"]\n',
    }


def _within(limit: int) -> int:
    return 30000 if limit == resource.RLIM_INFINITY else min(limit, 30000)
