"""The DAGs under enforced IAM.

The roles of infra/ suffice for every task of the main job, on SageMaker and on EC2, for a batch prediction, and for
looks at the endpoint's traffic.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.settings import REPOSITORY
from ml_pipeline.settings import INSTANCE_IMAGE, airflow_connection
from model_code.data import sample_data
from tests.infra.stacks import BUCKET, REGION
from tests.local_aws.cloud import eventually
from tests.local_aws.iam.enforced import Account, arn, create_roles

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(900)]

IMAGES = REPOSITORY / "plugins" / "ml_pipeline" / "aws" / "images.toml"
RUN_SECONDS = 400


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    options = ("--iam", "enforce", "--region", REGION, "--images", str(IMAGES))
    running = Account(tmp_path_factory.mktemp("account"), options)
    running.start()
    create_roles(running)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def environment(account: Account, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of an Airflow that has the credentials of its role and no others."""
    home = tmp_path_factory.mktemp("airflow")
    keys = account.of("ml-pipeline-airflow").keys
    assert keys is not None
    connection: dict[str, Any] = json.loads(airflow_connection(account.url, REGION))
    connection |= {"login": keys["aws_access_key_id"], "password": keys["aws_secret_access_key"]}
    connection["extra"]["aws_session_token"] = keys["aws_session_token"]
    made = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "AWS_"))},
        **{name.upper(): value for name, value in keys.items()},
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": account.url,
        "LOCAL_AWS_URL": account.url,
        "ML_PIPELINE_BUCKET": BUCKET,
        "ML_PIPELINE_ROLE_ARN": arn("ml-pipeline-job"),
        "ML_PIPELINE_INSTANCE_IMAGE": INSTANCE_IMAGE,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(connection),
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
    }
    execute(made, "airflow", "db", "migrate")
    return made


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    # Of 70 photos a class, 7 are for the test: enough for the reference of a look.
    sample_data.draw(folder, photos=70, classes=4)
    return folder


def execute(environment: dict[str, str], module: str, *arguments: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=REPOSITORY, env=environment, text=True, check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=RUN_SECONDS,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-8000:]


def run(environment: dict[str, str], photos: Path, **conf: Any) -> None:
    """A run of the main job; fails unless every task succeeds."""
    given = {
        "data": str(photos), "dataset_name": "shapes", "weights": "none", "architecture": "squeezenet1_1",
        "trials": 2, "min_accuracy": 0.0, **conf,
    }  # fmt: skip
    execute(environment, "tests.e2e.one_run", json.dumps(given))


def test_the_main_job_needs_no_more_than_its_roles(
    account: Account, environment: dict[str, str], photos: Path
) -> None:
    run(environment, photos, endpoint_max_count=2, capture_percent=100, capture_days=7)
    first = account.sagemaker.describe_endpoint(EndpointName="shapes")
    assert first["EndpointStatus"] == "InService"
    watch(account, environment, photos)
    # A second run finds a champion, trains on an instance and shifts the traffic under the eyes of alarms.
    run(environment, photos, endpoint_max_count=2, train_on="ec2", margin=1.0)
    second = account.sagemaker.describe_endpoint(EndpointName="shapes")
    assert second["EndpointStatus"] == "InService"
    assert second["EndpointConfigName"] != first["EndpointConfigName"]
    given = {"photos": str(photos), "dataset_name": "shapes"}
    execute(environment, "tests.e2e.one_run", json.dumps(given), "batch_predict")
    tables = account.s3.list_objects_v2(Bucket=BUCKET, Prefix="batch/predict-")["Contents"]
    assert [row["Key"] for row in tables if row["Key"].endswith("/predictions.csv")]


def watch(account: Account, environment: dict[str, str], photos: Path) -> None:
    """Send the endpoint some photos, and have `watch` look at them with the rights of Airflow and of its job."""
    runtime, files = account.client("sagemaker-runtime"), sorted(photos.glob("*/*.jpg"))[::7]
    for file in files:
        runtime.invoke_endpoint(
            EndpointName="shapes", ContentType="image/jpeg", Body=file.read_bytes(), InferenceId=file.name
        )
    prefix = "captures/7d/shapes/"

    def captured() -> int:
        found = account.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        bodies = (account.s3.get_object(Bucket=BUCKET, Key=item["Key"])["Body"].read() for item in found)
        return sum(body.count(b"\n") for body in bodies)

    eventually(lambda: captured() >= len(files))
    execute(environment, "tests.e2e.one_run", json.dumps({"endpoint_name": "shapes"}), "watch")
    for key in ("state.json", "timeline.html"):
        account.s3.head_object(Bucket=BUCKET, Key=f"watch/shapes/{key}")
    alarms = account.client("cloudwatch").describe_alarms(AlarmNames=["ml-pipeline-shapes-drift"])[
        "MetricAlarms"
    ]
    assert len(alarms) == 1
    assert account.s3.list_objects_v2(Bucket=BUCKET, Prefix="datasets/shapes/reviews/queue/")["KeyCount"] > 0
