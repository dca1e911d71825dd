"""`make notebook`: JupyterLab on loopback behind a token, with the environment of local_aws."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
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
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("AWS_PROFILE", "team")
    environment = notebook.environment(settings, "secret-token")
    assert environment["AWS_ENDPOINT_URL"] == "http://127.0.0.1:14999"
    assert environment["AWS_REGION"] == environment["AWS_DEFAULT_REGION"] == "us-east-1"
    assert environment["JUPYTER_TOKEN"] == "secret-token"
    sides = json.loads(environment["ML_PIPELINE_NOTEBOOK_AWS"])  # between which connect() changes
    assert sides["local"]["AWS_ENDPOINT_URL"] == environment["AWS_ENDPOINT_URL"]
    assert sides["account"]["AWS_PROFILE"] == "team"
    assert "AWS_ENDPOINT_URL" not in sides["account"]
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


@pytest.mark.parametrize("where", ["clone", "second"])
def test_git_stores_notebooks_without_outputs_and_the_file_keeps_them(tmp_path: Path, where: str) -> None:
    clone = tmp_path / "clone"
    folder = tmp_path / where

    def git(*arguments: str, cwd: Path = folder) -> str:
        done = subprocess.run(["git", *arguments], cwd=cwd, capture_output=True, text=True, check=True)
        assert "error" not in done.stderr
        return done.stdout

    clone.mkdir()
    git("init", "-q", cwd=clone)
    notebook.strip_outputs_on_commit(clone)
    if folder != clone:  # the clone's own .venv is of no use here
        person = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        git(*person, "commit", "-q", "--allow-empty", "-m", "empty", cwd=clone)
        git("worktree", "add", "-q", str(folder), cwd=clone)
    python = folder / notebook.PYTHON
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (folder / ".gitignore").write_text(".venv\n")
    shutil.copy(REPOSITORY / ".gitattributes", folder)
    shutil.copytree(notebook.NOTEBOOKS, folder / "notebooks", ignore=shutil.ignore_patterns("__pycache__"))
    seen = new_output("stream", text="seen")
    cell = new_code_cell("print('seen')", execution_count=3, outputs=[seen])
    own = folder / "notebooks/mine.ipynb"
    nbformat.write(new_notebook(cells=[cell]), own)
    git("add", ".")
    (stored,) = nbformat.reads(git("show", ":notebooks/mine.ipynb"), as_version=4).cells
    assert (stored.source, stored.outputs, stored.execution_count) == ("print('seen')", [], None)
    assert "seen" in nbformat.read(own, as_version=4).cells[0].outputs[0].text
    for path in notebook.NOTEBOOKS.glob("*.ipynb"):  # what is clean stays as it is, to the byte
        assert git("show", f":notebooks/{path.name}") == path.read_text()


def test_git_refuses_a_notebook_where_nothing_can_strip_it(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    notebook.strip_outputs_on_commit(tmp_path)
    shutil.copy(REPOSITORY / ".gitattributes", tmp_path)
    (tmp_path / "notebooks").mkdir()
    nbformat.write(new_notebook(cells=[]), tmp_path / "notebooks/mine.ipynb")
    done = subprocess.run(["git", "add", "."], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "clean filter 'notebook' failed" in done.stderr


def test_without_a_clone_there_is_nothing_to_filter(tmp_path: Path) -> None:
    notebook.strip_outputs_on_commit(tmp_path)
    assert list(tmp_path.iterdir()) == []
