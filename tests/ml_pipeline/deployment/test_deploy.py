"""Deployments on a local_aws whose endpoints really answer.

Rollouts, rollbacks by alarm and by smoke test, the number of machines, the lock, and taking an endpoint down.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import airflow.sdk
import pytest
from airflow.sdk.exceptions import TaskDeferred
from botocore.exceptions import ClientError, ReadTimeoutError

from ml_pipeline.dag import tasks
from ml_pipeline.deployment import locks, rollback, smoke_test, takedown
from ml_pipeline.deployment.locks import Holder
from ml_pipeline.errors import DeploymentRolledBack, JobInterrupted
from ml_pipeline.operators import deploy
from ml_pipeline.registry import packages as registry
from ml_pipeline.requests import endpoint
from ml_pipeline.settings import Settings
from ml_pipeline.triggers.lock import LockTrigger
from tests.local_aws.cloud import cloud, eventually
from tests.local_aws.serving import SERVING_IMAGE, pack
from tests.ml_pipeline.deployment.stage import CONTEXT, LAST_TRY, Stage, stage

__all__ = ["cloud", "stage"]


def test_an_alarm_rolls_back_and_the_next_deployment_knows_what_it_replaces(stage: Stage) -> None:
    first = stage.deploy(stage.package("1"))
    assert first["previous_config_name"] is None
    second = stage.deploy(stage.package("2"))
    assert second["previous_config_name"] == first["endpoint_config_name"]
    assert stage.made.ask()["version"] == "2"

    bad = stage.package("3")
    operator, waiting = stage.begin(bad, bake_seconds=60)
    alarm = f"ml-pipeline-{stage.made.endpoint}-5xx"
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


def test_a_model_that_answers_with_errors_is_rolled_back_and_can_come_back(stage: Stage) -> None:
    first = stage.deploy(stage.package("1"))
    package = stage.package("2")
    second = stage.deploy(package)
    dataset, evaluation = stage.photo(b"fail", path="a/first.jpg")
    with pytest.raises(smoke_test.SmokeTestFailed, match=r"photo a/first.jpg with ModelError(.|\n)*unwell"):
        tasks.smoke_test.function(dataset, evaluation, second)
    assert stage.status(package) == "Rejected"
    stage.made.settled()
    assert stage.made.ask()["version"] == "1"
    assert registry.champion(stage.sagemaker, stage.made.endpoint) == registry.describe(
        stage.sagemaker, first["model_package_arn"]
    )
    # Cleared alone, the test would judge the model before and then remove its config.
    with pytest.raises(smoke_test.SmokeTestFailed, match="clear the deploy task as well"):
        tasks.smoke_test.function(dataset, evaluation, second)
    assert stage.made.describe()["EndpointConfigName"] == first["endpoint_config_name"]
    assert stage.deploy(package) == second
    assert stage.status(package) == "Approved"


def test_an_answer_that_cannot_be_read_fails_the_smoke_test(stage: Stage) -> None:
    deployment = stage.deploy(stage.package("1"))
    with pytest.raises(smoke_test.SmokeTestFailed, match="photo k with KeyError: 'predictions'"):
        tasks.smoke_test.function(*stage.photo(b"a toy answers otherwise than our server"), deployment)


def test_an_unreachable_endpoint_is_rolled_back_after_the_last_try(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.deploy(stage.package("1"))
    package = stage.package("2")
    second = stage.deploy(package)

    def silent(*_: Any) -> None:
        raise ReadTimeoutError(endpoint_url=stage.made.endpoint)

    monkeypatch.setattr(smoke_test, "run", silent)
    for context, status in ((CONTEXT, "Approved"), (LAST_TRY, "Rejected")):
        monkeypatch.setattr(airflow.sdk, "get_current_context", lambda context=context: context)
        with pytest.raises(ReadTimeoutError):
            tasks.smoke_test.function({}, {}, second)
        assert stage.status(package) == status
    stage.made.settled()
    assert stage.made.ask()["version"] == "1"


def test_a_smoke_test_that_is_cleared_and_passes_approves_the_model_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = stage.package("1")
    deployment = stage.deploy(package)
    with pytest.raises(smoke_test.SmokeTestFailed):
        tasks.smoke_test.function(*stage.photo(b"fail", path="a/first.jpg"), deployment)
    assert stage.status(package) == "Rejected"
    monkeypatch.setattr(smoke_test, "run", lambda *_: {"agreed": 1})
    tasks.smoke_test.function({}, {}, deployment)
    assert stage.status(package) == "Approved"


def test_a_person_who_rejected_a_model_is_not_overruled(stage: Stage) -> None:
    package = stage.package("1")
    stage.sagemaker.update_model_package(
        ModelPackageArn=package["model_package_arn"], ModelApprovalStatus="Rejected",
        ApprovalDescription="rejected in Airflow by ada",
    )  # fmt: skip
    stage.deploy(package)
    assert stage.status(package) == "Rejected"


def test_want_of_machines_is_tried_again_and_rejects_only_at_last(stage: Stage) -> None:
    package = stage.package("1")
    operator = stage.operator(package)
    event = {
        "status": "Failed",
        "config": "",
        "reason": "CapacityError: Unable to provision requested capacity.",
    }
    for context, status in ((CONTEXT, "Approved"), (LAST_TRY, "Rejected")):
        with pytest.raises(JobInterrupted, match="Unable to provision"):
            operator.complete(context, event)
        assert stage.status(package) == status
    stage.deploy(package)
    assert stage.status(package) == "Approved"


def test_the_number_of_machines_is_what_was_asked_for_unless_the_load_decides(stage: Stage) -> None:
    def machines() -> int:
        count: int = stage.made.settled()["ProductionVariants"][0]["DesiredInstanceCount"]
        return count

    def limits() -> list[tuple[int, int]]:
        found = stage.scaling.describe_scalable_targets(
            ServiceNamespace="sagemaker", ResourceIds=[f"endpoint/{stage.made.endpoint}/variant/main"]
        )["ScalableTargets"]
        return [(target["MinCapacity"], target["MaxCapacity"]) for target in found]

    package = stage.package("1")
    stage.deploy(package)
    stage.deploy(package, instance_count=2)
    assert (machines(), limits()) == (2, [])
    # The same config, now with a load that decides: at least two.
    stage.operator(package, instance_count=2, max_count=3).execute(CONTEXT)
    assert (machines(), limits()) == (2, [(2, 3)])
    stage.deploy(package)
    assert (machines(), limits()) == (1, [])
    # The same config, on more machines than asked for, as the load had it.
    stage.sagemaker.update_endpoint_weights_and_capacities(
        EndpointName=stage.made.endpoint,
        DesiredWeightsAndCapacities=[{"VariantName": "main", "DesiredInstanceCount": 2}],
    )
    assert machines() == 2
    serving = stage.operator(package)._serving(Settings.load())
    target, _ = endpoint.autoscaling(replace(serving, max_count=2))
    stage.scaling.register_scalable_target(**target)
    stage.deploy(package)
    assert (machines(), limits()) == (1, [])
    assert stage.operator(package).execute(CONTEXT)["endpoint_name"] == stage.made.endpoint


class Dying:
    """A client whose caller is killed after each deletion; deletions are looked at by `check` first."""

    def __init__(self, client: Any, check: Callable[[], None] = lambda: None, *, dies: bool = True) -> None:
        self._client, self._check, self._dies = client, check, dies

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)
        if not name.startswith("delete_"):
            return call

        def delete(**request: Any) -> Any:
            self._check()
            response = call(**request)
            if self._dies:
                raise KeyboardInterrupt
            return response

        return delete


def test_a_takedown_that_is_killed_at_any_point_is_ended_by_the_next(stage: Stage) -> None:
    stage.deploy(stage.package("1"))
    stage.deploy(stage.package("2"), max_count=2)
    name, killed = stage.made.endpoint, 0
    while killed < 20:
        try:
            last = takedown.take_down(Dying(stage.sagemaker), Dying(stage.alarms), stage.scaling, name)
        except KeyboardInterrupt:
            killed += 1
        else:
            break
    assert last == {"endpoint_name": name, "deleted": []}
    assert killed >= 6  # an endpoint, two configs, two models, two alarms at once
    with pytest.raises(ClientError, match="Could not find"):
        eventually(lambda: not stage.made.describe())
    assert stage.sagemaker.list_endpoint_configs(NameContains=name)["EndpointConfigs"] == []
    assert stage.sagemaker.list_models(NameContains=name)["Models"] == []
    assert stage.alarms.describe_alarms(AlarmNamePrefix=f"ml-pipeline-{name}")["MetricAlarms"] == []


def test_a_takedown_waits_for_the_end_of_a_rollout(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(takedown, "_PAUSE_SECONDS", 0.05)
    stage.deploy(stage.package("1"))
    stage.begin(stage.package("2"), bake_seconds=1)
    seen: list[str] = []

    def look() -> None:
        if not seen:
            seen.append(stage.made.describe()["EndpointStatus"])

    client = Dying(stage.sagemaker, look, dies=False)
    takedown.take_down(client, stage.alarms, stage.scaling, stage.made.endpoint)
    assert seen == ["InService"]


def test_a_model_that_was_overwritten_is_not_deployed(stage: Stage) -> None:
    bucket, key = stage.made.bucket, "models/first/model.tar.gz"
    stage.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    stage.s3.put_object(Bucket=bucket, Key=key, Body=pack("first"))
    named = registry.object_version(stage.s3, f"s3://{bucket}/{key}")
    registry.ensure_group(stage.sagemaker, stage.made.endpoint, "toys")
    request = registry.model_package(
        stage.made.endpoint,
        f"s3://{bucket}/{key}",
        SERVING_IMAGE,
        "ml.m5.large",
        "s3://b/e",
        named,
        approved=True,
    )
    package = {"model_package_arn": stage.sagemaker.create_model_package(**request)["ModelPackageArn"]}
    newer = stage.s3.put_object(Bucket=bucket, Key=key, Body=pack("second"))["VersionId"]
    with pytest.raises(registry.ModelOverwritten, match=f"delete .* down to {named['model_version_id']}"):
        stage.operator(package).execute(CONTEXT)
    assert stage.sagemaker.list_endpoints()["Endpoints"] == []
    stage.s3.delete_object(Bucket=bucket, Key=key, VersionId=newer)
    stage.begin(package)
