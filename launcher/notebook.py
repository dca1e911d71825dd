"""`make notebook`: JupyterLab on loopback, in an environment that reaches local_aws."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from launcher import run as main_job
from launcher.settings import REPOSITORY, Secrets, Settings, airflow_environment

NOTEBOOKS = REPOSITORY / "notebooks"
LOOPBACK = REPOSITORY / "local_aws/clients/loopback"
PYTHON = ".venv/bin/python"


def notebook(settings: Settings, console: Console) -> int:
    """Start the services and JupyterLab; return when it ends (Ctrl-C).

    Raises:
        RunError: JupyterLab is not installed, or its port is in use.
    """
    if importlib.util.find_spec("jupyterlab") is None:
        raise main_job.RunError("JupyterLab is not installed here: pip install '.[notebook]'")
    check_port(settings.notebook_port)
    strip_outputs_on_commit(REPOSITORY)
    settings = main_job.bring_up(settings, console)
    token = secrets.token_urlsafe(24)
    url = f"http://127.0.0.1:{settings.notebook_port}/lab?token={token}"
    console.print(f"JupyterLab  {url}", soft_wrap=True, highlight=False)
    console.print("            Ctrl-C ends it; the services stay up (make stop)", highlight=False)
    return subprocess.call(command(settings, NOTEBOOKS), env=environment(settings, token))


def strip_outputs_on_commit(repository: Path) -> None:
    """Define the filter that .gitattributes names: git stores notebooks without the outputs that the files keep.

    Work trees share the definition, and git runs it at the top of each: the path is relative, to the .venv there.
    Where there is none, `git add` of a notebook fails, rather than store what an account answered.
    """
    if shutil.which("git") and (repository / ".git").exists():
        clean = f"{PYTHON} -m nbconvert --log-level=ERROR --clear-output --stdin --stdout"
        for name, value in (("clean", clean), ("smudge", "cat"), ("required", "true")):
            setting = f"filter.notebook.{name}"
            subprocess.run(["git", "config", setting, value], cwd=repository, check=False)


def command(settings: Settings, folder: Path) -> list[str]:
    """Build the command that serves the notebooks of `folder`; the token is not in it: `ps` shows it to everyone."""
    return [
        sys.executable, "-m", "jupyterlab", "--no-browser",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={settings.notebook_port}",
        "--ServerApp.port_retries=0",
        "--ServerApp.allow_root=True",  # who runs it in a container; without it root gets no server
        f"--ServerApp.root_dir={folder}",
        f"--LabApp.app_settings_dir={folder / '.lab'}",  # asks for no news and no updates
    ]  # fmt: skip


def environment(settings: Settings, token: str) -> dict[str, str]:
    """Return the environment of JupyterLab and its kernels: the clients' address, credentials and region.

    Jupyter's own files stay in the folder of the run, and Airflow's keys stay out.
    """
    clients = airflow_environment(settings, Secrets.load_or_create(settings.home))
    kept = {name: value for name, value in clients.items() if name.startswith(("AWS_", "LOCAL_AWS_"))}
    kept["AWS_REGION"] = kept["AWS_DEFAULT_REGION"]
    sides = {"local": kept, "account": os.environ}  # between which notebooks/ready.py changes
    own = settings.home / "jupyter"
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")},
        **kept,
        "ML_PIPELINE_NOTEBOOK_AWS": json.dumps(
            {
                side: {name: value for name, value in values.items() if name.startswith("AWS_")}
                for side, values in sides.items()
            }
        ),
        # Keeps the SageMaker SDK, which names an address of STS itself, on loopback.
        "PYTHONPATH": os.pathsep.join(filter(None, [str(LOOPBACK), os.environ.get("PYTHONPATH", "")])),
        "JUPYTER_TOKEN": token,
        "JUPYTER_CONFIG_DIR": str(own / "config"),
        "JUPYTER_DATA_DIR": str(own / "data"),
        "JUPYTER_RUNTIME_DIR": str(own / "runtime"),
        "IPYTHONDIR": str(own / "ipython"),
        "JUPYTERLAB_SETTINGS_DIR": str(own / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(own / "workspaces"),
    }


def check_port(port: int) -> None:
    """Refuse a port that is in use, before anything is started.

    Raises:
        RunError: The port is in use.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise main_job.RunError(
                f"port {port} is in use: stop the process that uses it, or choose another with NOTEBOOK_PORT=8889"
            ) from None
