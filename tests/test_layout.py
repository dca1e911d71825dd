"""The layout: folders stay small, and each import contract notices the import that it forbids."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"model_code": 18, "plugins/ml_pipeline": 18, "launcher": 18, "local_aws": 22}
CONTRACTS: list[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"][
    "importlinter"
]["contracts"]


def entries(folder: Path) -> list[str]:
    """The names in a folder that are ours."""
    return sorted(
        path.name for path in folder.iterdir() if path.name not in ("__pycache__", ".airflowignore")
    )


@pytest.mark.parametrize(("package", "most"), PACKAGES.items())
def test_folders_are_small(package: str, most: int) -> None:
    folders = [ROOT / package, *(path for path in (ROOT / package).rglob("*") if path.is_dir())]
    large = {
        str(folder.relative_to(ROOT)): len(entries(folder))
        for folder in folders
        if folder.name != "__pycache__" and len(entries(folder)) > most
    }
    assert large == {}


def test_no_module_is_longer_than_500_lines() -> None:
    long = {}
    for package in (*PACKAGES, "dags", "benchmarks", "docker", "tools"):
        for path in (ROOT / package).rglob("*.py"):
            lines = len(path.read_text().splitlines())
            if lines > 500:
                long[str(path.relative_to(ROOT))] = lines
    assert long == {}


def test_lines_of_scripts_fit_a_screen() -> None:
    long = [
        f"{script.name}:{number}"
        for script in ROOT.glob("plugins/ml_pipeline/console/static/*.js")
        for number, line in enumerate(script.read_text().splitlines(), 1)
        if len(line) > 110
    ]
    assert long == []


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The packages and their contracts, to be broken."""
    for package in PACKAGES:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(copy: Path) -> str:
    """The report of lint-imports on the copy."""
    environ = {**os.environ, "PYTHONPATH": f"{copy}{os.pathsep}{copy / 'plugins'}"}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=copy, env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return f"{done.returncode}\n{done.stdout}{done.stderr}"


def breach(contract: dict[str, Any]) -> tuple[str, str]:
    """A module, and an import that the contract forbids in it."""
    if contract["type"] == "forbidden":
        return contract["source_modules"][0], contract["forbidden_modules"][0]
    (container,) = contract["containers"]
    layers = [name.strip(" ()") for row in contract["layers"] for name in row.split("|")]
    present = [name for name in layers if _file(ROOT, f"{container}.{name}").exists()]
    return f"{container}.{present[-1]}", f"{container}.{present[0]}"


def _file(root: Path, module: str) -> Path:
    """The file of a module or package."""
    top = root / "plugins" if module.startswith("ml_pipeline") else root
    path = top.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract["name"])
def test_each_contract_reports_a_breach(contract: dict[str, Any], copy: Path) -> None:
    module, imported = breach(contract)
    file = _file(copy, module)
    file.write_text(file.read_text() + f"\nimport {imported}  # the breach\n")
    report = lint(copy)
    assert report.startswith("1\n"), report
    assert f"{contract['name']} BROKEN" in report


def test_the_tree_as_it_is_keeps_every_contract(copy: Path) -> None:
    report = lint(copy)
    assert report.startswith("0\n"), report
