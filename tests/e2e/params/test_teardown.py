"""The other DAGs, on what the runs before left behind."""

from __future__ import annotations

import csv
import io

import pytest

from ml_pipeline.requests import endpoint, names
from tests.e2e.params.stage import Stage

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(1200)]


def test_a_folder_of_photos_becomes_a_table(stage: Stage, first: str) -> None:
    run_id = stage.run("batch_predict", photos=str(stage.photos), dataset_name="dogs")
    result = stage.result(run_id, "table", "batch_predict")
    rows = list(csv.DictReader(io.StringIO(stage.object(result["table_uri"]).decode())))
    photos = {f"{photo.parent.name}/{photo.name}" for photo in stage.photos.glob("*/*.jpg")}
    assert {row["photo"] for row in rows if not row["reason"]} == photos
    assert {row["class"] for row in rows} <= {folder.name for folder in stage.photos.iterdir()}
    assert all(0 < float(row["probability"]) <= 1 for row in rows)


def test_an_endpoint_is_taken_down_and_all_that_was_learnt_stays(stage: Stage, first: str) -> None:
    sagemaker = stage.client("sagemaker")
    config = sagemaker.describe_endpoint(EndpointName="dogs")["EndpointConfigName"]
    # The runs of other tests deploy to this endpoint too, and those without endpoint_max_count end its scaling.
    stage.client("application-autoscaling").register_scalable_target(
        **endpoint.scalable_target("dogs"), MinCapacity=1, MaxCapacity=3
    )
    run_id = stage.run("teardown", endpoint_name="dogs")
    deleted = stage.result(run_id, "take_down", "teardown")["deleted"]
    assert {"endpoint dogs", f"endpoint config {config}", "autoscaling"} <= set(deleted)
    stage.wait(lambda: "dogs" not in endpoints(stage), "the endpoint to be gone", 60)
    assert config not in [
        row["EndpointConfigName"] for row in sagemaker.list_endpoint_configs()["EndpointConfigs"]
    ]
    assert sagemaker.list_model_packages(ModelPackageGroupName="dogs")["ModelPackageSummaryList"]
    again = stage.run("teardown", endpoint_name="dogs")
    assert stage.result(again, "take_down", "teardown")["deleted"] == []


def endpoints(stage: Stage) -> list[str]:
    return [row["EndpointName"] for row in stage.client("sagemaker").list_endpoints()["Endpoints"]]


def test_the_janitor_looks_and_removes_only_when_told_to(stage: Stage, first: str) -> None:
    ec2 = stage.client("ec2")
    tags = names.tags(names.Origin("train_and_deploy", "a run that was forgotten", "ec2.create"))
    forgotten, foreign = (
        ec2.run_instances(
            ImageId="ami-12c6146b", InstanceType="m5.large", MinCount=1, MaxCount=1,
            TagSpecifications=[{"ResourceType": "instance", "Tags": tag}],
        )["Instances"][0]["InstanceId"]
        for tag in (tags, [{"Key": "project", "Value": "of others"}])
    )  # fmt: skip
    looked = stage.run("janitor", days=1, instance_hours=0)
    found = stage.result(looked, "sweep", "janitor")
    assert [orphan["name"] for orphan in found["found"]] == [forgotten]
    assert (found["dry_run"], found["removed"]) == (True, 0)
    assert state(stage, forgotten) in ("pending", "running")
    swept = stage.run("janitor", days=1, instance_hours=0, dry_run=False)
    assert stage.result(swept, "sweep", "janitor")["removed"] == 1
    stage.wait(lambda: state(stage, forgotten) == "terminated", "the machine to be gone", 60)
    assert state(stage, foreign) in ("pending", "running")
    ec2.terminate_instances(InstanceIds=[foreign])


def state(stage: Stage, instance_id: str) -> str:
    described = stage.client("ec2").describe_instances(InstanceIds=[instance_id])
    return str(described["Reservations"][0]["Instances"][0]["State"]["Name"])
