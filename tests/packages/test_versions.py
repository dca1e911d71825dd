"""An Airflow or a provider outside the declared range is one line that names the fix."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from ml_pipeline.dag.versions import SUPPORTED, VersionsError, check_versions

ROOT = Path(__file__).resolve().parents[2]
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


def test_every_dag_of_an_airflow_outside_the_range_says_so(tmp_path: Path) -> None:
    # The version of an installed distribution is what its folder of metadata says; the first on the path counts.
    metadata = tmp_path / "apache_airflow-3.5.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: apache-airflow\nVersion: 3.5.0\n")
    program = (
        "import json; from airflow.dag_processing.dagbag import DagBag\n"
        f"bag = DagBag({str(ROOT / 'dags')!r}); print(json.dumps([sorted(bag.dags), bag.import_errors]))"
    )
    environ = {**os.environ, "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    environ["PYTHONPATH"] = os.pathsep.join((str(tmp_path), str(ROOT / "plugins"), str(ROOT)))
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True)
    dags, errors = json.loads(done.stdout.splitlines()[-1])
    assert dags == []
    assert len(errors) == len([path for path in (ROOT / "dags").glob("*.py") if path.name != "__main__.py"])
    wanted = "apache-airflow>=3.2.1,<3.5"
    line = f'VersionsError: ml-pipeline works with {wanted} and 3.5.0 is here: pip install "{wanted}"'
    assert all(error.rstrip().endswith(line) for error in errors.values()), errors


def test_ranges_are_those_of_the_distribution() -> None:
    path = ROOT / "packages/ml-pipeline/pyproject.toml"
    lines = tomllib.loads(path.read_text())["project"]["dependencies"]
    declared = {one.name: one.specifier for one in map(Requirement, lines)}
    for name, (first, beyond) in SUPPORTED.items():
        bounds = {f">={first}"} | ({f"<{beyond}"} if beyond else set())
        assert {str(bound) for bound in declared[name]} == bounds
