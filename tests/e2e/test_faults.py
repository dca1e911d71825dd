"""Every branch behind a proxy that fails calls and loses answers: runs end well, and each job is paid for once.

`FAULT_RUNS=5 python -m pytest tests/e2e/test_faults.py -m slow` runs each branch five times while a tenth of all calls
fails, or FAULT_SHARE of them. Without FAULT_RUNS only the lost answers are tested: the slow tests have to stay short.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from launcher.settings import Secrets
from local_aws.iam.credentials import root_key
from ml_pipeline.settings import airflow_connection
from tests.e2e.conftest import make_laptop
from tests.e2e.fault_proxy import FaultProxy
from tests.e2e.params.stage import Stage, stage_on

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(3000)]

RUNS = int(os.environ.get("FAULT_RUNS", "0"))
SHARE = float(os.environ.get("FAULT_SHARE", "0.1"))
# Seconds: a run is repeated in parts, after pauses.
LONGEST = 2400.0
BRANCHES: dict[str, dict[str, Any]] = {
    "jobs": {"tune_mode": "job", "trials": 2},
    "packed": {"tune_mode": "packed"},
    "ec2": {"train_on": "ec2"},
}


@pytest.fixture(scope="module")
def proxy_and_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FaultProxy, Stage]]:
    laptop = make_laptop(tmp_path_factory.mktemp("faults"))
    Secrets.load_or_create(laptop.home)  # marks the folder as one of the launcher's
    key = root_key(laptop.home / "local_aws")
    with FaultProxy(int(laptop.environ["LOCAL_AWS_PORT"])) as proxy:
        laptop.environ |= {
            "ML_PIPELINE_AWS_CONN_ID": "faulty",
            "AIRFLOW_CONN_FAULTY": airflow_connection(proxy.url, key=key.id, secret=key.secret),
        }
        with stage_on(laptop) as stage:
            yield proxy, stage


@pytest.fixture
def proxy(proxy_and_stage: tuple[FaultProxy, Stage]) -> Iterator[FaultProxy]:
    """The proxy without faults, until a test asks for some."""
    proxy = proxy_and_stage[0]
    for counter in (proxy.calls, proxy.failed, proxy.lost, proxy.created):
        counter.clear()
    yield proxy
    proxy.share = 0.0
    proxy.lose.clear()


@pytest.fixture
def stage(proxy_and_stage: tuple[FaultProxy, Stage]) -> Stage:
    return proxy_and_stage[1]


def test_lost_answers_to_creates_make_nothing_twice(stage: Stage, proxy: FaultProxy) -> None:
    wanted = [
        "CreateTrainingJob", "CreateProcessingJob", "CreateHyperParameterTuningJob", "CreateModelPackageGroup",
        "CreateModelPackage", "CreateModel", "CreateEndpointConfig", "CreateEndpoint", "PutScalingPolicy",
    ]  # fmt: skip
    proxy.lose.update(wanted)
    run_id = stage.start(
        dataset_name="lost", endpoint_name="lost", tune_mode="job", trials=2, endpoint_max_count=2
    )
    stage.finish(run_id, "success", seconds=LONGEST)
    sagemaker = stage.client("sagemaker")
    (package,) = sagemaker.list_model_packages(ModelPackageGroupName="lost")["ModelPackageSummaryList"]
    assert package["ModelApprovalStatus"] == "Approved"
    assert sagemaker.describe_endpoint(EndpointName="lost")["EndpointStatus"] == "InService"
    paid_once(stage, proxy, run_id)
    proxy.lose.update(["CreateTransformJob", "CreateModel"])
    batch = stage.start("batch_predict", photos=str(stage.photos), dataset_name="lost")
    stage.finish(batch, "success", "batch_predict", LONGEST)
    transforms = sagemaker.list_transform_jobs()["TransformJobSummaries"]
    assert [job["TransformJobStatus"] for job in transforms] == ["Completed"]
    assert set(proxy.lost) >= {*wanted, "CreateTransformJob"}


@pytest.mark.parametrize("number", range(RUNS))
@pytest.mark.parametrize("branch", BRANCHES)
def test_a_run_ends_well_although_calls_fail(
    stage: Stage, proxy: FaultProxy, branch: str, number: int
) -> None:
    proxy.share = SHARE
    # The seed makes it another piece of work each time.
    run_id = stage.start(dataset_name="faults", endpoint_name="faults", seed=number, **BRANCHES[branch])
    stage.finish(run_id, "success", seconds=LONGEST)
    proxy.share = 0.0
    assert proxy.failed.total() > 0
    assert proxy.lost.total() > 0
    paid_once(stage, proxy, run_id)
    assert stage.client("sagemaker").describe_endpoint(EndpointName="faults")["EndpointStatus"] == "InService"
    reservations = stage.client("ec2").describe_instances()["Reservations"]
    machines = [machine for reservation in reservations for machine in reservation["Instances"]]
    assert {machine["State"]["Name"] for machine in machines} <= {"shutting-down", "terminated"}
    assert len([m for m in machines if {"Key": "run_id", "Value": run_id} in m["Tags"]]) == (branch == "ec2")


@pytest.mark.parametrize("number", range(RUNS))
@pytest.mark.parametrize("dag_id", ["batch_predict", "deploy", "watch", "teardown"])
def test_the_other_dags_end_well_although_calls_fail(
    stage: Stage, proxy: FaultProxy, dag_id: str, number: int
) -> None:
    endpoints = stage.client("sagemaker").list_endpoints()["Endpoints"]
    if "faults" not in {endpoint["EndpointName"] for endpoint in endpoints}:
        stage.finish(
            stage.start(dataset_name="faults", endpoint_name="faults", capture_days=7),
            "success",
            seconds=LONGEST,
        )
    confs: dict[str, dict[str, Any]] = {
        "batch_predict": {"photos": str(stage.photos), "dataset_name": "faults"},
        "deploy": {"dataset_name": "faults", "endpoint_name": "faults", "version": 1},
        "watch": {"endpoint_name": "faults", "least_photos": 2},
        "teardown": {"endpoint_name": "faults"},
    }
    proxy.share = SHARE
    run_id = stage.start(dag_id, **confs[dag_id])
    stage.finish(run_id, "success", dag_id, LONGEST)
    if stage.jobs(run_id):
        stage.paid_once(run_id)
    assert set(proxy.created.values()) <= {1}, proxy.created


def paid_once(stage: Stage, proxy: FaultProxy, run_id: str) -> None:
    """Every job of the run was created once, also in the eyes of the proxy."""
    stage.paid_once(run_id)
    assert set(proxy.created.values()) <= {1}, proxy.created
