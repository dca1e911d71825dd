"""The bill of a run: what its jobs and machines were billed for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ml_pipeline.aws.jobs import JobKind
from ml_pipeline.costs import bill as report
from ml_pipeline.costs.prices import Prices
from ml_pipeline.operators.ec2 import metrics_in
from tests.ml_pipeline.fake_sagemaker import client_error

PRICES = Prices.load()
TRAINED = {
    "TrainingJobName": "train-1",
    "ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 2},
    "BillableTimeInSeconds": 300,
}


class Described:
    """A SageMaker client that knows one training job."""

    def describe_training_job(self, **names: str) -> dict[str, Any]:
        if names["TrainingJobName"] == TRAINED["TrainingJobName"]:
            return TRAINED
        raise client_error("ResourceNotFound", "Requested resource not found")


def test_the_ec2_branch_is_billed_by_its_machine_at_ec2_prices() -> None:
    machine = {"instance_id": "i-1", "instance_type": "m5.xlarge", "seconds": 1800.0}
    results: dict[str, Any] = {
        "ec2.train": {"metrics": {"photos_per_second": 1.0}},
        "ec2.terminate": {"machines": [machine]},
    }
    bill = report.make(Described(), PRICES, results)
    assert [(line["step"], line["job_name"], line["billable_seconds"]) for line in bill["steps"]] == [
        ("ec2", "i-1", 1800.0)
    ]
    assert bill["usd"] == pytest.approx(0.192 / 2)


def test_every_machine_of_a_job_is_billed_and_those_kept_warm_for_longer() -> None:
    plain = report.job_line("train", JobKind.TRAINING, TRAINED, PRICES)
    assert plain["usd"] == pytest.approx(2 * 300 * 0.23 / 3600, abs=1e-6)
    kept = {
        **TRAINED,
        "WarmPoolStatus": {"Status": "Terminated", "ResourceRetainedBillableTimeInSeconds": 600},
    }
    assert report.job_line("train", JobKind.TRAINING, kept, PRICES)["billable_seconds"] == 900


def test_the_selected_of_several_instance_types_is_billed() -> None:
    preferences = [{"InstanceType": "ml.m5.xlarge"}, {"InstanceType": "ml.g4dn.xlarge"}]
    selected = {"SelectedInstanceType": "ml.g4dn.xlarge", "SelectedInstanceCount": 2}
    resources = {"InstancePreferences": preferences, "InstanceCount": 2}
    line = report.job_line(
        "train", JobKind.TRAINING, {**TRAINED, "ResourceConfig": {**resources, **selected}}, PRICES
    )
    assert (line["instance_type"], line["instance_count"]) == ("ml.g4dn.xlarge", 2)
    waiting = report.job_line("train", JobKind.TRAINING, {**TRAINED, "ResourceConfig": resources}, PRICES)
    assert waiting["instance_type"] == "ml.m5.xlarge"


def test_a_processing_job_is_billed_from_its_start_to_its_end() -> None:
    start = datetime(2026, 11, 22, tzinfo=UTC)
    description = {
        "ProcessingJobName": "embed-1",
        "ProcessingResources": {"ClusterConfig": {"InstanceType": "ml.g9.huge", "InstanceCount": 1}},
        "ProcessingStartTime": start,
        "ProcessingEndTime": start + timedelta(minutes=2),
    }
    line = report.job_line("embed", JobKind.PROCESSING, description, PRICES)
    assert line["billable_seconds"] == 120
    assert line["usd"] is None


def test_the_metrics_of_a_command_are_the_last_of_its_log() -> None:
    log = ["valid_accuracy=0.5 epoch=1", "noise", "valid_accuracy=0.75 valid_loss=1e-3 epoch=2"]
    assert metrics_in(log) == {"valid_accuracy": 0.75, "valid_loss": 0.001, "epoch": 2.0}


def test_the_job_that_made_the_version_is_a_line_of_the_bill() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    cluster = {"InstanceType": "ml.c5.2xlarge", "InstanceCount": 1}
    described = {
        "ProcessingJobName": "prepare-1",
        "ProcessingResources": {"ClusterConfig": cluster},
        "ProcessingStartTime": start,
        "ProcessingEndTime": start + timedelta(hours=1),
    }

    class Client:
        def describe_processing_job(self, **_: str) -> dict[str, Any]:
            return described

    bill = report.make(Client(), PRICES, {"upload": {"job_name": "prepare-1"}})
    assert [(line["step"], line["usd"]) for line in bill["steps"]] == [("prepare", 0.408)]
    assert report.make(Client(), PRICES, {"upload": {"job_name": None}})["steps"] == []
