"""make mwaa: the three files, installed with the constraints of MWAA's image on its Python, import every DAG.

data/airflow_constraints.txt is images/airflow/3.3.1/etc/airflow_constraints.txt of aws/amazon-mwaa-docker-images
(Apache-2.0), pinned here by its digest.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.packages.test_wheels import clean, find_python
from tools import mwaa

CONSTRAINTS = Path(__file__).with_name("data") / "airflow_constraints.txt"
AIRFLOW = "3.3.1"
SHA256 = "bff32ed535a2a0e876e5d6995f4df3a74787e758b32e8c70c300b148b810866a"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mwaa")
    mwaa.build(folder)
    return folder


def test_the_constraints_are_the_pinned_ones() -> None:
    assert hashlib.sha256(CONSTRAINTS.read_bytes()).hexdigest() == SHA256


def test_the_files_hold_what_mwaa_takes(built: Path) -> None:
    plugins = zipfile.ZipFile(built / "plugins.zip").namelist()
    assert [re.sub(r"-.*", "", name) for name in plugins] == ["ml_pipeline", "model_code"]
    lines = (built / "requirements.txt").read_text().splitlines()
    assert lines == [f"/usr/local/airflow/plugins/{name}" for name in plugins]
    dags = zipfile.ZipFile(built / "dags.zip").namelist()
    assert "train_and_deploy.py" in dags
    assert "__main__.py" not in dags
    assert all(path.stat().st_size <= mwaa.LARGEST_BYTES for path in built.iterdir())


def test_a_file_above_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mwaa, "LARGEST_BYTES", 10)
    (tmp_path / "a.py").write_text("x = 1\n")
    with pytest.raises(SystemExit, match="more than"):
        mwaa.pack(tmp_path / "dags.zip", [tmp_path / "a.py"])


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_every_dag_imports_under_mwaas_constraints(built: Path, tmp_path: Path) -> None:
    python = find_python("3.12")
    subprocess.run([python, "-m", "venv", str(tmp_path / "venv")], check=True)
    plugins, dags = tmp_path / "plugins", tmp_path / "dags"
    zipfile.ZipFile(built / "plugins.zip").extractall(plugins)
    zipfile.ZipFile(built / "dags.zip").extractall(dags)
    wanted = (built / "requirements.txt").read_text().replace(mwaa.PLUGINS, str(plugins))
    (tmp_path / "requirements.txt").write_text(wanted)
    venv = tmp_path / "venv/bin/python"
    argv = [
        str(venv),
        "-m",
        "pip",
        "install",
        "--quiet",
        f"apache-airflow=={AIRFLOW}",
        "-c",
        str(CONSTRAINTS),
    ]
    argv += ["-r", str(tmp_path / "requirements.txt")]
    environ = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PIP_CONSTRAINT")
    }
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
    if re.search(r"No matching distribution|[Cc]onnection|resolve host", done.stderr):
        pytest.skip(f"no package index can be reached: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    program = (
        "import airflow; from airflow.dag_processing.dagbag import DagBag\n"
        f"bag = DagBag({str(dags)!r}); print('DAGS', airflow.__version__, sorted(bag.dags), bag.import_errors)"
    )
    home = clean(AIRFLOW_HOME=str(tmp_path / "airflow"), AIRFLOW__CORE__LOAD_EXAMPLES="False")
    home |= {"ML_PIPELINE_BUCKET": "photos", "AWS_DEFAULT_REGION": "us-east-1"}
    home["ML_PIPELINE_ROLE_ARN"] = "arn:aws:iam::123456789012:role/jobs"
    seen = subprocess.run([str(venv), "-c", program], cwd=tmp_path, env=home, capture_output=True, text=True)
    assert f"DAGS {AIRFLOW}" in seen.stdout, seen.stderr
    assert "'train_and_deploy'" in seen.stdout
    assert seen.stdout.rstrip().endswith("{}"), seen.stdout
