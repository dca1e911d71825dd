"""Checks before anything long starts. Each failure is one line that names the fix."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

from launcher.settings import Secrets, Settings, SettingsError

# Airflow's database and logs, the uploaded photos once more, models: 1 GB suffices for a small set.
NEEDED_FREE_BYTES = 1 << 30


class PreflightError(RuntimeError):
    """The run cannot start; the message is one line that names the fix."""


def claim_home(home: Path) -> None:
    """Create the folder of a run, or adopt an earlier run's.

    Raises:
        PreflightError: The folder holds anything else (`make clean` would remove it), or cannot be written.
    """
    if not is_home(home) and home.is_dir() and any(home.iterdir()):
        raise PreflightError(
            f"{home} holds files that no run wrote: give ML_PIPELINE_HOME a folder of its own"
        )
    try:
        Secrets.load_or_create(home)
    except OSError as error:
        raise PreflightError(
            f"{home} cannot be written ({error.strerror}): choose another folder with ML_PIPELINE_HOME=<folder>"
        ) from None


def is_home(folder: Path) -> bool:
    """Return true when a run has claimed this folder: it holds a run's secrets.

    Raises:
        PreflightError: A file of that name was not written by a run.
    """
    try:
        return Secrets.load(folder) is not None
    except SettingsError as error:
        raise PreflightError(str(error)) from None


def check_ports(settings: Settings) -> None:
    """Refuse a port that another process listens on."""
    if settings.airflow_port == settings.local_aws_port:
        raise PreflightError(
            f"AIRFLOW_PORT and LOCAL_AWS_PORT are both {settings.airflow_port}: "
            f"choose another with make run LOCAL_AWS_PORT={free_port()}"
        )
    for name, port in (("AIRFLOW_PORT", settings.airflow_port), ("LOCAL_AWS_PORT", settings.local_aws_port)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise PreflightError(
                    f"port {port} is in use ({error.strerror}): stop the process that listens there, "
                    f"or choose another with make run {name}={free_port()}"
                ) from None


def free_port() -> int:
    """Return a free port of loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_disk(home: Path, data_bytes: int = 0) -> None:
    """Refuse to start on a disk that the run would fill: the photos are stored again, in S3."""
    needed = NEEDED_FREE_BYTES + 2 * data_bytes
    existing = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise PreflightError(
            f"{existing} has {free / 1e9:.1f} GB free and the run needs {needed / 1e9:.1f} GB: "
            "free some space, or put the run elsewhere with ML_PIPELINE_HOME=<folder>"
        )


def check_conf(settings: Settings, dag_id: str) -> None:
    """Refuse params in CONF that the DAG does not have, or whose values its form refuses.

    Raises:
        SettingsError: The message names the param and the nearest ones, or what its value may be.
    """
    if not settings.conf:  # the form takes seconds to import
        return
    import os

    os.environ["AIRFLOW_HOME"] = str(settings.airflow_home)  # importing Airflow makes a folder there
    from airflow.sdk.exceptions import ParamValidationError

    from ml_pipeline.costs.checks import refuse_unknown
    from ml_pipeline.dag import params

    form = params.forms()[dag_id]()
    try:
        refuse_unknown(settings.conf, form, dag_id)
    except ValueError as error:
        raise SettingsError(f"CONF: {error}") from None
    for name, value in settings.conf.items():
        try:
            form[name].resolve(value)
        except ParamValidationError as error:
            first = str(error).splitlines()[0]
            raise SettingsError(f"CONF: {name}={value!r}: {first}") from None


def check_architecture(name: str) -> None:
    """Refuse an architecture that neither torchvision nor timm has."""
    from ml_pipeline.dataset import weights

    try:
        weights.check_architecture(name)
    except weights.WeightsError as error:
        raise SettingsError(f"ARCHITECTURE={name}: {error}") from error
