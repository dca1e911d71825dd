"""An Airflow or a provider outside the declared range is one line that names the fix."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from ml_pipeline.plugin import SUPPORTED, VersionsError, check_versions

GOOD = {"apache-airflow": "3.4.9", "apache-airflow-providers-amazon": "9.34.0"}


def test_what_is_installed_here_is_supported() -> None:
    check_versions()
    check_versions(GOOD)


@pytest.mark.parametrize(
    ("name", "version"),
    [("apache-airflow", "3.2.0"), ("apache-airflow", "3.5.0"), ("apache-airflow-providers-amazon", "9.33.1")],
)
def test_a_version_outside_the_range_names_the_fix(name: str, version: str) -> None:
    with pytest.raises(VersionsError, match=rf'{re.escape(version)} is here: pip install "{name}>='):
        check_versions({**GOOD, name: version})


def test_ranges_are_those_of_the_distribution() -> None:
    path = Path(__file__).resolve().parents[2] / "packages/ml-pipeline/pyproject.toml"
    lines = tomllib.loads(path.read_text())["project"]["dependencies"]
    declared = {one.name: one.specifier for one in map(Requirement, lines)}
    for name, (first, beyond) in SUPPORTED.items():
        bounds = {f">={first}"} | ({f"<{beyond}"} if beyond else set())
        assert {str(bound) for bound in declared[name]} == bounds
