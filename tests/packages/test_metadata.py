"""The three distributions declare exactly the packages that their sources import."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {
    "local-aws": ["local_aws"],
    "ml-pipeline": ["plugins/ml_pipeline", "dags"],
    "model-code": ["model_code"],
}
OURS = {"local_aws", "ml_pipeline", "ml_pipeline_dags", "model_code"}
# Comes with a declared package, and is part of its interface.
WITH = {
    "botocore": "boto3",
    "airflow": "apache-airflow",
    # Airflow's api-server, to which the console adds pages.
    "cachetools": "apache-airflow",
    "fastapi": "apache-airflow",
    "jinja2": "apache-airflow",
    "sqlalchemy": "apache-airflow",
}


def project(name: str) -> dict[str, Any]:
    """The [project] table of a distribution."""
    table: dict[str, Any] = tomllib.loads((ROOT / "packages" / name / "pyproject.toml").read_text())[
        "project"
    ]
    return table


def imported(folders: list[str]) -> set[str]:
    """Top-level names of the modules that are imported anywhere in the sources."""
    found = set()
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    found |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - OURS


def declared(name: str) -> set[str]:
    """Normalized names of everything that a distribution declares, extras included."""
    table = project(name)
    extras = table.get("optional-dependencies", {})
    lines = [*table["dependencies"], *(line for extra in extras.values() for line in extra)]
    return {re.sub(r"[-_.]+", "-", Requirement(line).name).lower() for line in lines}


@pytest.mark.parametrize("name", SOURCES)
def test_every_import_is_declared(name: str) -> None:
    providers = metadata.packages_distributions()
    missing = {}
    for module in imported(SOURCES[name]):
        known = WITH.get(module)
        names = (
            {known}
            if known
            else {re.sub(r"[-_.]+", "-", one).lower() for one in providers.get(module, [module])}
        )
        if module != "airflow" and not names & declared(name):
            missing[module] = sorted(names)
    assert missing == {}


@pytest.mark.parametrize("name", SOURCES)
def test_ranges_are_honest(name: str) -> None:
    table = project(name)
    accepted = SpecifierSet(table["requires-python"])
    assert [v for v in ("3.10", "3.11", "3.12", "3.13", "3.14") if v in accepted] == ["3.11", "3.12", "3.13"]
    root = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (table["version"], table["requires-python"]) == (root["version"], root["requires-python"])


def test_the_airflow_side_needs_no_torch_moto_or_sdk() -> None:
    lines = {
        Requirement(line).name: Requirement(line).specifier for line in project("ml-pipeline")["dependencies"]
    }
    assert not {"torch", "moto", "sagemaker", "openvino"} & set(lines)
    assert [v for v in ("3.2.0", "3.2.1", "3.4.9", "3.5.0") if v in lines["apache-airflow"]] == [
        "3.2.1",
        "3.4.9",
    ]
    assert [v for v in ("9.33", "9.34") if v in lines["apache-airflow-providers-amazon"]] == ["9.34"]


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_declared_admits_what_is_locked(name: str) -> None:
    for line in project(name)["dependencies"]:
        requirement = Requirement(line)
        if requirement.name in SOURCES:
            continue
        assert requirement.specifier.contains(metadata.version(requirement.name), prereleases=True), line
