"""The version of a deployment by hand: which one, on which instances, and who is champion afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from ml_pipeline.dag import params, tasks
from ml_pipeline.deployment import choice, rollback
from ml_pipeline.deployment.choice import NoSuchVersion, newer, pick
from ml_pipeline.registry import packages as registry
from ml_pipeline.registry.packages import Package
from ml_pipeline.settings import Settings
from tests.local_aws.cloud import cloud
from tests.ml_pipeline.deployment.stage import Stage, stage

__all__ = ["cloud", "stage"]
DEFAULTS: dict[str, Any] = {name: param.value for name, param in params.deploy().items()}


def package(number: int, status: str = "Approved", approval: str = "") -> Package:
    arn = f"arn:aws:sagemaker:us-east-1:1:model-package/dogs/{number}"
    return Package(arn, status, f"s3://bucket/{number}/model.tar.gz", "image", {}, approval)


KNOWN = [
    package(5, "PendingManualApproval"),
    package(4),
    package(3, "Rejected", "rejected in Airflow by ada"),
    package(2, "Rejected", "Not in service: alarm"),
    package(1),
]


@pytest.mark.parametrize(
    ("wanted", "serving", "found"),
    [
        ("", None, 4),
        ("1", None, 1),
        ("2", None, 2),
        ("previous", 4, 2),
        ("previous", 2, 1),
        (KNOWN[1].arn, None, 4),
    ],
)
def test_a_version_is_picked(wanted: str, serving: int | None, found: int) -> None:
    live = next((one for one in KNOWN if choice.version_of(one) == serving), None)
    assert choice.version_of(pick(KNOWN, "dogs", wanted, live)) == found


@pytest.mark.parametrize(
    ("known", "wanted", "serving", "words"),
    [
        (KNOWN, "9", None, "has no model version 9; it has 5, 4, 3, 2, 1"),
        (KNOWN, "5", None, "is PendingManualApproval: approve its package"),
        (KNOWN, "3", None, "is Rejected: approve its package"),
        (KNOWN, "previous", None, "none to roll back: give a version"),
        (KNOWN, "previous", KNOWN[-1], "the oldest that may be deployed"),
        (KNOWN[:1], "", None, "has no approved model: run train_and_deploy"),
    ],
)
def test_a_version_that_cannot_be_deployed_is_refused_with_the_fix(
    known: list[Package], wanted: str, serving: Package | None, words: str
) -> None:
    with pytest.raises(NoSuchVersion, match=words):
        pick(known, "dogs", wanted, serving)


def test_newer_versions_do_not_stay_champions() -> None:
    assert [choice.version_of(one) for one in newer(KNOWN, KNOWN[-1].arn)] == [4]
    assert newer(KNOWN, KNOWN[1].arn) == []


def test_a_version_that_serves_already_keeps_its_model_and_its_capture(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = stage.made.endpoint
    first = stage.package("1", dataset_name=group, dataset_version="v")
    stage.deploy(first, capture_percent=40, capture_days=30)

    def chosen(**more: Any) -> Any:
        given = {**DEFAULTS, "dataset_name": group, "endpoint_name": group, "version": "1", **more}
        return choice.choose(stage.sagemaker, stage.s3, stage.scaling, Settings.load(), given)

    kept, off = chosen(), chosen(capture_days=0)
    assert (kept["capture_percent"], kept["capture_days"]) == (40, 30)
    assert off["capture_days"] == 0
    deployed = stage.deploy(first, capture_percent=40, capture_days=0)
    previous = deployed["previous_config_name"]
    assert previous
    rollback.retire(stage.sagemaker, group, previous)
    live = stage.sagemaker.describe_endpoint(EndpointName=group)["EndpointConfigName"]
    assert live != previous
    config = stage.sagemaker.describe_endpoint_config(EndpointConfigName=live)
    stage.sagemaker.describe_model(ModelName=config["ProductionVariants"][0]["ModelName"])
    with pytest.raises(stage.sagemaker.exceptions.ClientError, match="Could not find"):
        stage.sagemaker.describe_endpoint_config(EndpointConfigName=previous)


def test_a_rollback_serves_the_version_before_on_the_same_instances(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = stage.made.endpoint
    metadata = {"dataset_name": group, "dataset_version": "v", "predictions_uri": "s3://bucket/p.jsonl"}
    first = stage.package("1", **metadata)
    stage.deploy(first)
    stage.deploy(stage.package("2", **metadata), max_count=3)

    def chosen(version: str) -> Any:
        given = {**DEFAULTS, "dataset_name": group, "endpoint_name": group, "version": version}
        return choice.choose(stage.sagemaker, stage.s3, stage.scaling, Settings.load(), given)

    back = chosen("previous")
    assert back["model_package_arn"] == first["model_package_arn"]
    assert (back["instance_type"], back["instance_count"], back["max_count"]) == ("ml.m5.large", 1, 3)
    assert back["manifest_uri"].endswith(f"datasets/{group}/versions/v/manifest.json")
    stage.deploy({"model_package_arn": back["model_package_arn"]}, max_count=back["max_count"])
    assert stage.made.ask()["version"] == "1"
    monkeypatch.setattr(tasks, "client", lambda service: stage.sagemaker)
    assert tasks.keep_champion.function(back) == {"rejected": [2]}
    champion = registry.champion(stage.sagemaker, group)
    assert champion
    assert champion.arn == first["model_package_arn"]
    # The version that was rolled back may be deployed again, and is the champion then.
    again = chosen("2")
    stage.deploy({"model_package_arn": again["model_package_arn"]})
    assert tasks.keep_champion.function(again) == {"rejected": []}
    champion = registry.champion(stage.sagemaker, group)
    assert champion
    assert champion.arn == again["model_package_arn"]
