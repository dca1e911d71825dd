"""The Amazon provider's own SageMaker operators and sensors, sync and deferrable, against local_aws."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.local_aws.cloud import Signing, unique
from tests.local_aws.transform import SERVER
from tests.local_aws.tuning import SCORE

DAG = Path(__file__).with_name("stock_operators_dag.py")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_operator_and_sensor_of_the_supported_families(signing: Signing, tmp_path: Path) -> None:
    bucket = signing.bucket()
    code = signing.put_code(bucket, train=SCORE)
    signing.s3.put_object(Bucket=bucket, Key="train/a", Body=b"a")
    signing.s3.put_object(Bucket=bucket, Key="batch/a.csv", Body=b"1\n2\n")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("code/server.py")
        member.size = len(SERVER.encode())
        archive.addfile(member, io.BytesIO(SERVER.encode()))
    signing.s3.put_object(Bucket=bucket, Key="model.tar.gz", Body=packed.getvalue())
    connection = {
        "conn_type": "aws",
        "login": signing.key.id,
        "password": signing.key.secret,
        "extra": {"endpoint_url": signing.url, "region_name": "us-east-1"},
    }
    dags = tmp_path / "dags"
    dags.mkdir()
    shutil.copy(DAG, dags)
    environment = {
        **os.environ,
        "STOCK_OPERATORS": json.dumps([bucket, code, f"s3://{bucket}/model.tar.gz", unique("x")[2:]]),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
        "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(connection),
        "AWS_ENDPOINT_URL": signing.url,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": signing.key.id,
        "AWS_SECRET_ACCESS_KEY": signing.key.secret,
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
    assert len(states) == 22
