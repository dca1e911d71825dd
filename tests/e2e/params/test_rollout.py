"""Guards that keep a bad model out of service: alarms, the smoke test, a person, and one deployment at a time."""

from __future__ import annotations

import pytest

from tests.e2e.params.conftest import Told
from tests.e2e.params.stage import Stage

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(1200)]


def live(stage: Stage) -> dict[str, str]:
    found = stage.client("sagemaker").describe_endpoint(EndpointName="dogs")
    return {"status": found["EndpointStatus"], "config": found["EndpointConfigName"]}


def test_one_deployment_at_a_time_an_alarm_rolls_back_and_an_overwritten_model_is_refused(
    stage: Stage, told: Told, first: str
) -> None:
    before = live(stage)
    assert before["status"] == "InService"
    conf = {"dataset_name": "dogs", "endpoint_name": "dogs"}
    watched = stage.start(**conf, hyperparameters={"epochs": 3}, bake_seconds=600)
    asked = stage.start(**conf, hyperparameters={"epochs": 4}, approval="human")
    stage.wait_for_task(watched, "deploy", "deferred")
    stage.wait(lambda: live(stage)["status"] == "Updating", "the update")
    # Another model replaces the evaluated one before a person approves it.
    good, bad = (stage.result(run, "evaluate")["model_uri"] for run in (first, stage.parked(asked)))
    stage.put(bad, stage.object(good))
    stage.approve(asked)
    stage.wait_for_task(asked, "deploy", "deferred")
    assert f"is being deployed by train_and_deploy/{watched}: waiting" in stage.log(asked, "deploy")

    alarm = "ml-pipeline-dogs-5xx"
    ring(stage, alarm, "ALARM")
    stage.wait(lambda: live(stage)["status"] != "Updating", "the rollback")
    # Left on, it would roll the next deployment back as well.
    ring(stage, alarm, "OK")
    stage.finish(watched, "failed")
    assert alarm in stage.log(watched, "deploy")
    assert alarm in told.of(watched, "failed")
    assert package_status(stage, watched) == "Rejected"

    stage.finish(asked, "failed")
    assert stage.states(asked)["deploy"] == "failed"
    assert "was overwritten after it was registered" in told.of(asked, "failed")
    stage.wait(lambda: live(stage) == before, "the model before to be back in service")
    assert (
        stage.client("s3").list_objects_v2(Bucket="ml-pipeline", Prefix="locks/dogs").get("Contents") is None
    )
    # The tests after this one take the newest approved version.
    overwritten = stage.result(asked, "register")["model_package_arn"]
    stage.client("sagemaker").update_model_package(
        ModelPackageArn=overwritten, ModelApprovalStatus="Rejected"
    )


def ring(stage: Stage, alarm: str, state: str) -> None:
    """Set the alarm's state by hand."""
    stage.client("cloudwatch").set_alarm_state(AlarmName=alarm, StateValue=state, StateReason="set by a test")


def package_status(stage: Stage, run_id: str) -> str:
    arn = stage.result(run_id, "register")["model_package_arn"]
    package = stage.client("sagemaker").describe_model_package(ModelPackageName=arn)
    return str(package["ModelApprovalStatus"])
