"""Deployments on a local_aws whose endpoints really answer: rollouts, a rollback by alarm, the lock."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from ml_pipeline import locks, registry, rollback
from ml_pipeline.errors import DeploymentRolledBack
from ml_pipeline.locks import Holder
from ml_pipeline.operators import deploy
from ml_pipeline.operators.deploy import DeployEndpointOperator
from ml_pipeline.settings import airflow_connection
from ml_pipeline.triggers.lock import LockTrigger
from tests.local_aws.conftest import ROLE, Cloud, cloud, eventually
from tests.local_aws.serving import SERVING_IMAGE, Deployment, pack

__all__ = ["cloud"]


class Stage:
    """Packages, and a run of the operator as Airflow would run it."""

    def __init__(self, cloud: Cloud) -> None:
        self.made = Deployment(cloud)
        self.sagemaker, self.s3 = cloud.sagemaker, cloud.s3
        self.alarms = cloud.client("cloudwatch")

    def package(self, version: str) -> dict[str, str]:
        """A registered model that answers with its version."""
        key = f"models/{version}/model.tar.gz"
        self.s3.put_object(Bucket=self.made.bucket, Key=key, Body=pack(version))
        group = self.made.endpoint
        registry.ensure_group(self.sagemaker, group, "toys")
        uri = f"s3://{self.made.bucket}/{key}"
        request = registry.model_package(group, uri, SERVING_IMAGE, "ml.m5.large", uri, {"toy": version}, approved=True)
        return {"model_package_arn": self.sagemaker.create_model_package(**request)["ModelPackageArn"]}

    def begin(
        self, package: dict[str, str], bake_seconds: int = 0
    ) -> tuple[DeployEndpointOperator, TaskDeferred]:
        """Start a deployment up to the point where it waits."""
        operator = DeployEndpointOperator(
            task_id="deploy", endpoint_name=self.made.endpoint, package=package, bake_seconds=bake_seconds
        )
        with pytest.raises(TaskDeferred) as waiting:
            operator.execute(CONTEXT)
        return operator, waiting.value

    def end(self, operator: DeployEndpointOperator, waiting: TaskDeferred) -> dict[str, Any]:
        """Wait as the triggerer does, and resume."""

        async def event() -> Any:
            async for fired in waiting.trigger.run():
                return fired.payload
            return None

        result: dict[str, Any] = getattr(operator, waiting.method_name)(CONTEXT, asyncio.run(event()))
        return result

    def deploy(self, package: dict[str, str]) -> dict[str, Any]:
        return self.end(*self.begin(package))


CONTEXT = {
    "ti": SimpleNamespace(
        dag_id="train_and_deploy", run_id="run", task_id="deploy", map_index=-1, xcom_push=lambda **_: None
    )
}


@pytest.fixture
def stage(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage(cloud)
    monkeypatch.setenv("LOCAL_AWS_URL", cloud.url)
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", airflow_connection(cloud.url))
    monkeypatch.setenv("ML_PIPELINE_BUCKET", made.made.bucket)
    monkeypatch.setenv("ML_PIPELINE_ROLE_ARN", ROLE)
    yield made
    made.sagemaker.delete_endpoint(EndpointName=made.made.endpoint)


def test_an_alarm_rolls_back_and_the_next_deployment_knows_what_it_replaces(stage: Stage) -> None:
    first = stage.deploy(stage.package("1"))
    assert first["previous_config_name"] is None
    second = stage.deploy(stage.package("2"))
    assert second["previous_config_name"] == first["endpoint_config_name"]
    assert stage.made.ask()["version"] == "2"

    bad = stage.package("3")
    operator, waiting = stage.begin(bad, bake_seconds=60)
    alarm = f"{stage.made.endpoint}-5xx"
    stage.alarms.set_alarm_state(AlarmName=alarm, StateValue="ALARM", StateReason="set by a test")
    with pytest.raises(DeploymentRolledBack, match=alarm):
        stage.end(operator, waiting)
    stage.alarms.set_alarm_state(AlarmName=alarm, StateValue="OK", StateReason="set by a test")
    assert stage.made.ask()["version"] == "2"
    assert registry.describe(stage.sagemaker, bad["model_package_arn"]).status == "Rejected"

    # The config of the failed rollout is newer than the one that serves, and must not be gone back to.
    third = stage.deploy(stage.package("4"))
    assert third["previous_config_name"] == second["endpoint_config_name"]
    assert "goes back to" in rollback.roll_back(stage.sagemaker, third, "the smoke test failed")
    eventually(lambda: stage.made.describe()["EndpointConfigName"] == second["endpoint_config_name"])
    assert stage.made.ask()["version"] == "2"


def test_a_second_run_waits_for_the_first(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    package = stage.package("1")
    lock = locks.uri(stage.made.bucket, stage.made.endpoint)
    other = Holder("train_and_deploy", "another run")
    over: list[bool] = []
    monkeypatch.setattr(deploy, "run_is_over", lambda *_: bool(over))
    assert locks.acquire(stage.s3, lock, other, lambda _: False) is None
    operator, waiting = stage.begin(package)
    assert isinstance(waiting.trigger, LockTrigger)
    assert waiting.method_name == "again"
    assert locks.release(stage.s3, lock, other)
    with pytest.raises(TaskDeferred) as deploying:
        stage.end(operator, waiting)
    assert stage.end(operator, deploying.value)["endpoint_name"] == stage.made.endpoint
