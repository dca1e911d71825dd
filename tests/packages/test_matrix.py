"""The main job in a clone: lowest Python with lowest Airflow, and highest Python (`make test-matrix`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.preflight import free_port
from model_code.data import sample_data
from tests.launcher.clone import make_clone, sh
from tests.packages.test_wheels import MATRIX, PYTHONS, RELEASES, find_python

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(not MATRIX, reason="the main job on other interpreters: make test-matrix"),
]


@pytest.mark.parametrize(("version", "release"), [(PYTHONS[0], "lowest"), (PYTHONS[-1], "locked")])
def test_the_main_job(version: str, release: str, tmp_path: Path) -> None:
    clone = make_clone(tmp_path / "clone")
    sample_data.draw(tmp_path / "photos", photos=60, classes=4)
    settings = {
        "AIRFLOW_PORT": str(free_port()), "LOCAL_AWS_PORT": str(free_port()), "DATA": str(tmp_path / "photos"),
        "WEIGHTS": "none", "ARCHITECTURE": "squeezenet1_1", "TRIALS": "2", "CONF": '{"min_accuracy": 0.0}',
    }  # fmt: skip
    make = f"make PYTHON={find_python(version)}"
    made = sh(f"{make} setup", clone)
    assert made.returncode == 0, made.stdout
    if RELEASES[release]:
        changed = sh(f".venv/bin/python -m pip install --quiet {' '.join(RELEASES[release])}", clone)
        assert changed.returncode == 0, changed.stdout
    try:
        done = sh(f"{make} run", clone, **settings)
        assert done.returncode == 0, done.stdout
        assert "success" in sh(f"{make} status", clone, **settings).stdout
    finally:
        sh(f"{make} stop", clone, **settings)
