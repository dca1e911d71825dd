"""The environment is built once, by one make at a time, and only for those that need what is in it."""

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from launcher import bootstrap
from launcher.settings import REPOSITORY

MADE_FROM = ("requirements.lock", "requirements-cuda.lock", "pyproject.toml")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Write the files that an environment is made from."""
    for name in MADE_FROM:
        (tmp_path / name).write_text("torch==1\n")
    monkeypatch.setattr(bootstrap, "ROOT", str(tmp_path))
    monkeypatch.setattr(bootstrap, "CPU_BUILD", (0, 0, 0))
    monkeypatch.setattr(bootstrap, "CUDA_BUILD", (0, 0, 0))
    return tmp_path


@pytest.fixture
def make(root, monkeypatch):
    """Runs bootstrap as make does; `make.create` is called where packages would be installed."""

    def run(*options):
        monkeypatch.setattr(sys, "argv", ["bootstrap.py", *options, str(root / ".venv")])
        bootstrap.main()

    monkeypatch.setattr(bootstrap, "create", lambda venv: run.create(venv))  # type: ignore[attr-defined]
    return run


def put_python(venv: Path, *options: str) -> None:
    """A Python with this one's packages, without them when it is given -S."""
    python = venv / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" {" ".join(options)} "$@"\n')
    python.chmod(0o755)


def never(venv):
    raise AssertionError("an environment that will do is built anew")


def test_the_second_of_two_first_makes_waits_and_finds_the_environment(make, capsys):
    building, go_on, made = threading.Event(), threading.Event(), []

    def create(venv):
        made.append(venv)
        building.set()
        assert go_on.wait(20)

    make.create = create
    first, second = threading.Thread(target=make), threading.Thread(target=make)
    first.start()
    assert building.wait(20)
    second.start()
    said, deadline = "", time.monotonic() + 20
    while "waiting for it" not in said:
        assert time.monotonic() < deadline
        time.sleep(0.01)
        said += capsys.readouterr().out
    go_on.set()
    first.join(20)
    second.join(20)
    assert len(made) == 1


def test_an_older_environment_stops_with_no_space_for_another(make, root, monkeypatch):
    put_python(root / ".venv")
    (root / ".venv" / bootstrap.STAMP_FILE).write_text("of an older lock")
    for build in ("CPU_BUILD", "CUDA_BUILD"):
        monkeypatch.setattr(bootstrap, build, (1, 10**9, 1))
    make.create = never
    make("--any")
    with pytest.raises(SystemExit, match="the packages need"):
        make()


@pytest.mark.parametrize("half_built", [False, True])
def test_an_environment_that_cannot_start_the_launcher_is_built(make, root, half_built):
    if half_built:
        put_python(root / ".venv", "-S")
    made = []
    make.create = made.append
    make("--any")
    assert made == [str(root / ".venv")]
    make.create = never
    make()


def test_an_interrupted_upgrade_is_not_taken_for_the_older_environment(make, root):
    made = []
    make.create = made.append
    make()
    (root / "requirements.lock").write_text("torch==2\n")

    def interrupted(venv):
        raise KeyboardInterrupt

    make.create = interrupted
    with pytest.raises(KeyboardInterrupt):
        make()
    (root / "requirements.lock").write_text("torch==1\n")
    make.create = made.append
    make()
    assert len(made) == 2


@pytest.mark.parametrize(
    ("command", "said"),
    [("stop", "nothing was running"), ("status", "nothing is up"), ("clean", "nothing to remove")],
)
def test_make_looks_and_stops_with_an_older_environment_and_no_network(tmp_path, command, said):
    for name in ("Makefile", "launcher", *MADE_FROM):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    put_python(tmp_path / ".venv")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    environ = {**kept, "PIP_NO_INDEX": "1", "ML_PIPELINE_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        ["make", command, f"PYTHON={sys.executable}"], cwd=tmp_path, env=environ, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False,
    )  # fmt: skip
    assert said in done.stdout
    assert os.listdir(tmp_path / ".venv") == ["bin"]


def test_an_unsupported_python_is_one_line_that_names_the_fix(make, monkeypatch):
    make.create = never
    monkeypatch.setattr(bootstrap.sys, "version_info", (3, 10, 13))
    with pytest.raises(SystemExit, match=r"^error: Python 3\.11 to 3\.13 is needed .* make PYTHON="):
        make()


@pytest.mark.parametrize(("asked", "cuda"), [("1", True), ("0", False)])
def test_gpu_chooses_the_builds(asked, cuda):
    assert bootstrap.wants_cuda({"GPU": asked}) is cuda
    with pytest.raises(SystemExit, match="GPU=yes is neither 0 nor 1"):
        bootstrap.wants_cuda({"GPU": "yes"})


def test_torch_falls_back_to_the_default_index_with_one_line(monkeypatch, capsys):
    asked = []

    def pip(venv, *arguments, may_fail=False):
        asked.append(arguments)
        return not may_fail

    monkeypatch.setattr(bootstrap, "pip", pip)
    monkeypatch.setattr(bootstrap, "has_cuda_wheels", lambda: True)
    bootstrap.install_torch("venv", ["install"], cuda=False)
    assert [bootstrap.CPU_INDEX in arguments for arguments in asked] == [True, False]
    assert re.search(r"cannot be reached.*needs \d\.\d GB more", capsys.readouterr().out)


def test_the_lock_is_split_with_its_hashes():
    torch, others = bootstrap.split_lock(
        "# x\na==1 \\\n    --hash=1\ntorch==2 \\\n    --hash=2\ntorchvision==3\n"
    )
    assert torch == "torch==2 \\\n    --hash=2\n"
    assert others == "# x\na==1 \\\n    --hash=1\ntorchvision==3\n\n"


def test_an_environment_of_another_python_is_emptied(tmp_path):
    old = tmp_path / "lib" / "python3.9"
    old.mkdir(parents=True)
    (tmp_path / bootstrap.LOCK_FILE).touch()
    bootstrap.empty_if_other_python(str(tmp_path))
    assert os.listdir(tmp_path) == [bootstrap.LOCK_FILE]
    current = tmp_path / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    current.mkdir(parents=True)
    bootstrap.empty_if_other_python(str(tmp_path))
    assert current.is_dir()


def test_every_pin_carries_hashes():
    for name in MADE_FROM[:2]:
        entries = re.split(r"\n(?=[A-Za-z0-9])", (REPOSITORY / name).read_text())
        assert [
            entry for entry in entries if "==" in entry.split()[0] and "--hash=sha256:" not in entry
        ] == []
        assert len(entries) > 10
