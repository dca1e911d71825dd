"""The Amazon provider's own EC2 and SSM operators and sensors, sync and deferrable, against local_aws."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.local_aws.cloud import Signing, unique

DAG = Path(__file__).with_name("ec2_operators_dag.py")
TASKS = 16


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_ec2_and_ssm_operator_and_sensor(signing: Signing, tmp_path: Path) -> None:
    connection = {
        "conn_type": "aws",
        "login": signing.key.id,
        "password": signing.key.secret,
        "extra": {"endpoint_url": signing.url, "region_name": "us-east-1"},
    }
    image = signing.client("ec2").describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    dags = tmp_path / "dags"
    dags.mkdir()
    shutil.copy(DAG, dags)
    environment = {
        **os.environ,
        "EC2_OPERATORS": json.dumps([image, unique("x")]),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
        "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(connection),
    }
    migrate = [sys.executable, "-m", "airflow", "db", "migrate"]
    subprocess.run(migrate, env=environment, check=True, capture_output=True, timeout=180)
    argv = [sys.executable, str(dags / DAG.name)]
    ran = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=400, check=False)
    lines = [line for line in ran.stdout.splitlines() if line.startswith("STATES ")]
    assert lines, ran.stdout[-3000:] + ran.stderr[-3000:]
    states = json.loads(lines[0].removeprefix("STATES "))
    failed = {task: state for task, state in states.items() if not state.endswith("success")}
    assert not failed, ran.stdout[-6000:]
    assert len(states) == TASKS
