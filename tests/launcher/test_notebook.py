"""`make notebook`: JupyterLab on loopback behind a token, with the environment of local_aws."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from launcher import notebook
from launcher.run import RunError
from launcher.settings import REPOSITORY, Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, local_aws_port=14999, notebook_port=18888)


def test_kernels_reach_local_aws_and_get_none_of_airflows_keys(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW_HOME", raising=False)
    environment = notebook.environment(settings, "secret-token")
    assert environment["AWS_ENDPOINT_URL"] == "http://127.0.0.1:14999"
    assert environment["AWS_REGION"] == environment["AWS_DEFAULT_REGION"] == "us-east-1"
    assert environment["JUPYTER_TOKEN"] == "secret-token"
    assert (Path(environment["PYTHONPATH"].partition(":")[0]) / "sitecustomize.py").is_file()
    assert not [name for name in environment if name.startswith(("AIRFLOW__", "AIRFLOW_CONN"))]
    own = [
        name for name in environment if name.startswith(("JUPYTER_", "IPYTHON")) and name != "JUPYTER_TOKEN"
    ]
    assert own
    assert all(environment[name].startswith(str(settings.home)) for name in own)


def test_it_listens_on_loopback_and_the_token_is_not_on_the_command_line(settings: Settings) -> None:
    command = notebook.command(settings, notebook.NOTEBOOKS)
    assert "--ServerApp.ip=127.0.0.1" in command
    assert "--ServerApp.port=18888" in command
    assert "--ServerApp.allow_root=True" in command
    assert not [word for word in command if "token" in word.lower()]


def test_jupyterlab_finds_the_settings_that_ask_for_no_news(settings: Settings) -> None:
    labapp = pytest.importorskip("jupyterlab.labapp", reason="needs the extra notebook")
    app = labapp.LabApp()
    app.parse_command_line(notebook.command(settings, notebook.NOTEBOOKS)[3:])
    overrides = json.loads((Path(app.app_settings_dir) / "overrides.json").read_text())
    assert overrides["@jupyterlab/apputils-extension:notification"]["fetchNews"] == "false"


def test_a_port_in_use_is_refused_with_the_fix() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(RunError, match=r"is in use.*NOTEBOOK_PORT="):
            notebook.check_port(taken.getsockname()[1])


def test_git_stores_notebooks_without_outputs_and_the_file_keeps_them(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout

    git("init", "-q")
    shutil.copy(REPOSITORY / ".gitattributes", tmp_path)
    notebook.strip_outputs_on_commit(tmp_path)
    shutil.copytree(notebook.NOTEBOOKS, tmp_path / "notebooks", ignore=shutil.ignore_patterns("__pycache__"))
    seen = new_output("stream", text="seen")
    cell = new_code_cell("print('seen')", execution_count=3, outputs=[seen])
    own = tmp_path / "notebooks/mine.ipynb"
    nbformat.write(new_notebook(cells=[cell]), own)
    git("add", ".")
    (stored,) = nbformat.reads(git("show", ":notebooks/mine.ipynb"), as_version=4).cells
    assert (stored.source, stored.outputs, stored.execution_count) == ("print('seen')", [], None)
    assert "seen" in nbformat.read(own, as_version=4).cells[0].outputs[0].text
    for path in notebook.NOTEBOOKS.glob("*.ipynb"):  # what is clean stays as it is, to the byte
        assert git("show", f":notebooks/{path.name}") == path.read_text()


def test_without_a_clone_there_is_nothing_to_filter(tmp_path: Path) -> None:
    notebook.strip_outputs_on_commit(tmp_path)
    assert list(tmp_path.iterdir()) == []
