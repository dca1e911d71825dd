"""Checks made before anything long starts. Each failure is one line that names the fix."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

from launcher.settings import Settings, SettingsError

# Airflow's database and logs, the uploaded photos once more, models: 1 GB suffices for a small set.
NEEDED_FREE_BYTES = 1 << 30


class PreflightError(RuntimeError):
    """The run cannot start; the message is one line that names the fix."""


def check_ports(settings: Settings) -> None:
    """Refuse a port that something else listens on."""
    for name, port in (("AIRFLOW_PORT", settings.airflow_port), ("LOCAL_AWS_PORT", settings.local_aws_port)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise PreflightError(
                    f"port {port} is taken ({error.strerror}): stop what listens there, "
                    f"or choose another with make run {name}={free_port()}"
                ) from None


def free_port() -> int:
    """A port of loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_disk(home: Path, data_bytes: int = 0) -> None:
    """Refuse to start on a disk that the run would fill; the photos are stored once more, in S3."""
    needed = NEEDED_FREE_BYTES + 2 * data_bytes
    existing = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise PreflightError(
            f"{existing} has {free / 1e9:.1f} GB free and the run needs {needed / 1e9:.1f} GB: "
            "free some space, or put the run elsewhere with ML_PIPELINE_HOME=<folder>"
        )
    home.mkdir(parents=True, exist_ok=True)
    if not os.access(home, os.W_OK):
        raise PreflightError(f"{home} is not writable: choose another folder with ML_PIPELINE_HOME=<folder>")


def check_architecture(name: str) -> None:
    """Refuse an architecture torchvision does not have."""
    from model_code.torchvision_compat import torchvision

    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        import difflib

        close = difflib.get_close_matches(name, names, 3) or ["mobilenet_v2"]
        raise SettingsError(
            f"ARCHITECTURE={name} is no torchvision classification model: try {' or '.join(close)}"
        )
