"""Refusals and messages of `plan`, on the params as the form gives them."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest

from ml_pipeline.aws import s3 as objects
from ml_pipeline.costs import machines, plan
from ml_pipeline.costs.prices import PriceError, Prices
from ml_pipeline.dag import params, tasks
from ml_pipeline.dataset.upload import upload
from ml_pipeline.deployment import takeover
from ml_pipeline.operators.ec2 import Ec2TrainingOperator
from ml_pipeline.requests.types import BilledEndpoint, Planned
from ml_pipeline.settings import Settings
from tests.ml_pipeline.dataset.stores import BUCKET, Store, bucket, shapes

LOCAL = Settings.load({"LOCAL_AWS_URL": "http://127.0.0.1:1"})
DEFAULTS: dict[str, Any] = {name: param.value for name, param in params.train_and_deploy().items()}
UNPRICED = "ml.m5.24xlarge"
CHOICES = {
    **dict.fromkeys(("learning_rate", "weight_decay", "label_smoothing", "prior")),
    "dropout": {"choices": [0.1, 0.3, 0.5]},
    "mixup": {"choices": [0.0, 0.4]},
}


@pytest.fixture
def photos(tmp_path: Path) -> str:
    """A folder with one class and one file."""
    (tmp_path / "dogs").mkdir()
    (tmp_path / "dogs" / "a.jpg").touch()
    return str(tmp_path)


def planned(data: str, **changes: Any) -> Planned:
    names = {"data": data, "dataset_name": "dogs", "endpoint_name": "dogs"}
    return plan.make({**DEFAULTS, **names, **changes}, DEFAULTS, LOCAL, None)


def service_client(service: str) -> Any:
    """A client with its service model and no service."""
    return boto3.client(
        service, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    )  # fmt: skip


def steps(**changes: Any) -> dict[str, plan.Step]:
    params = {**DEFAULTS, **dict.fromkeys(machines.NAMES, machines.CPU), **changes}
    found = plan.estimate(params, 12_000, Prices.load())
    return {step.step: step for step in found}


def test_the_defaults_make_a_plan_that_leaves_nothing_out(photos: str) -> None:
    made = planned(photos)
    assert made["estimate_usd"] > 0
    assert made["out_of_use"] == []
    assert "unknown" not in made["note"]


def test_photos_that_do_not_fit_on_the_disk_are_said_to_be_read_from_s3(photos: str) -> None:
    with (Path(photos) / "dogs" / "a.jpg").open("wb") as file:
        file.truncate(105 * 2**30)
    line = "the photos do not fit on the disk of ml.g4dn.xlarge: fine-tuning reads them from S3 as it goes"
    assert line in planned(photos, strategy="finetune")["note"]
    assert "FastFile" not in planned(photos, strategy="finetune", train_on="ec2")["note"]
    assert "FastFile" not in planned(photos)["note"]
    big = dict.fromkeys(("tune_instance_type", "train_instance_type"), "ml.g4dn.8xlarge")
    assert "FastFile" not in planned(photos, strategy="finetune", **big)["note"]


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({"strategy": "finetune"}, "train"),
        ({"strategy": "finetune", "tune_mode": "packed", "trials": 100}, "tune"),
        ({"evaluate_instance_type": "ml.m5.large"}, None),
    ],
)
def test_a_job_that_would_be_stopped_is_refused(changes: dict[str, Any], step: str | None) -> None:
    found = list(steps(**changes).values())
    if step is None:
        return plan.check_time(found, 1)
    with pytest.raises(plan.TooLong, match=rf"{step} on .* stopped after 1 h: raise max_job_hours"):
        plan.check_time(found, 1)
    return plan.check_time(found, 100)


def test_trials_in_jobs_of_their_own_have_a_limit_each() -> None:
    packed, apart = (steps(strategy="finetune", tune_mode=mode)["tune"] for mode in ("packed", "job"))
    assert packed.job_seconds == pytest.approx(12 * apart.job_seconds, rel=1e-3)


def test_a_command_on_ec2_may_run_two_days() -> None:
    found = steps(train_on="ec2", strategy="finetune", hyperparameters={"epochs": 1000})
    with pytest.raises(plan.TooLong, match=r"ec2 on .* stopped after 48 h"):
        plan.check_time([found["ec2"]], 600)
    material: dict[str, Any] = dict.fromkeys(
        ("machine", "dataset", "weights", "embeddings", "tuning", "recipe")
    )
    operator = Ec2TrainingOperator(task_id="train", max_job_hours=600, **material)
    assert operator.longest_run().total_seconds() == 48 * 3600


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spot": True, "keep_alive": 60}, "spot instances cannot be kept alive"),
        ({"tune_strategy": "Hyperband", "early_stopping": True}, "turn early_stopping off"),
        ({"tune_mode": "packed", "tune_strategy": "Grid"}, "tune_mode=packed searches"),
        ({"tune_mode": "packed", "tune_strategy": "Hyperband"}, "tune_mode=packed searches"),
        ({"tune_strategy": "Grid"}, "Grid searches choices only, and learning_rate"),
        ({"endpoint_name": "a-" * 40 + "a"}, "endpoint_name"),
        (
            {"train_instance_type": "ml.m5.xlarge, ml.m6i.xlarge", "spot": True},
            "takes several instance types only",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_paid(
    photos: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        planned(photos, **changes)


@pytest.mark.parametrize(
    ("changes", "embed", "fit"),
    [
        ({}, machines.CPU, machines.CPU),
        ({"strategy": "finetune", "max_job_hours": 100}, machines.CPU, machines.GPU),
        ({"train_instance_type": "ml.m5.large"}, machines.CPU, "ml.m5.large"),
        ({"embed_instance_type": "ml.g5.xlarge"}, "ml.g5.xlarge", machines.CPU),
    ],
)
def test_the_plan_chooses_the_machines_that_the_params_leave_to_it(
    photos: str, changes: dict[str, Any], embed: str, fit: str
) -> None:
    made = planned(photos, **changes)
    assert made["machines"]["embed_instance_type"] == embed
    assert made["machines"]["train_instance_type"] == fit
    used = {step["step"]: step["instance_type"] for step in made["steps"]}
    assert used["train"] == fit
    assert used.get("embed", embed) == embed


def test_many_photos_are_embedded_where_it_is_cheaper() -> None:
    prices = Prices.load()

    def seconds(work: str, machine: str, amount: float) -> float:
        return amount / prices.assumed_rate(work, machine)

    few, many = (machines.of_embedding(DEFAULTS, photos, prices, seconds) for photos in (12_000, 1_000_000))
    assert few == {"embed_instance_type": machines.CPU}
    assert many == {"embed_instance_type": machines.GPU}


def test_the_most_expensive_of_several_instance_types_is_planned(photos: str) -> None:
    one, several = (
        planned(photos, endpoint_instance_type=names)
        for names in ("ml.m5.xlarge", "ml.m5.large, ml.m5.xlarge")
    )
    assert several["endpoint_usd_per_hour"] == one["endpoint_usd_per_hour"]


def test_a_grid_of_choices_counts_its_trials_itself(photos: str) -> None:
    made = planned(photos, tune_strategy="Grid", ranges=CHOICES, trials=20)
    (tune,) = (step for step in made["steps"] if step["step"] == "tune")
    assert tune["seconds"] == pytest.approx(6 * 180, rel=0.01)
    assert made["out_of_use"] == ["trials=20 is ignored with tune_strategy=Grid"]


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        (
            {"tune_mode": "packed", "target": 0.9, "parallel_trials": 4, "trials": 9},
            [f"{given} is ignored with tune_mode=packed" for given in ("parallel_trials=4", "target=0.9")],
        ),
        (
            {"train_on": "ec2", "train_instance_count": 2, "spot": True},
            [
                "train_instance_count=2 is ignored with train_on=ec2",
                "spot=True applies to the search only with train_on=ec2",
            ],
        ),
        ({"strategy": "finetune", "views": 4}, ["views=4 is ignored with strategy=finetune"]),
        ({"train_instance_count": 2, "spot": True, "target": 0.9, "views": 4}, []),
    ],
)
def test_ignored_params_are_listed(photos: str, changes: dict[str, Any], lines: list[str]) -> None:
    assert planned(photos, **changes)["out_of_use"] == lines


def test_capture_is_told_with_its_cost(photos: str) -> None:
    assert "keeps" not in planned(photos)["note"]
    note = planned(photos, capture_percent=50, capture_days=30)["note"]
    # 500,000 photos of 100 kB are 66.7 GB as base64, for a month at $0.023.
    assert "keeps 50 % of its requests for 30 days in S3, about $1.53 per million requests" in note


def test_a_machine_without_a_price_runs_unless_there_is_a_budget(photos: str) -> None:
    made = planned(photos, tune_instance_type=UNPRICED, endpoint_instance_type=UNPRICED)
    assert {step["step"] for step in made["steps"] if step["usd"] is None} == {"tune"}
    assert made["estimate_usd"] > 0
    assert made["endpoint_usd_per_hour"] is None
    assert f"without {UNPRICED}, whose price is unknown" in made["note"]
    assert "costs an unknown price" in made["note"]
    with pytest.raises(
        PriceError, match=f"budget_usd=100 .* no price for {UNPRICED}.*ML_PIPELINE_PRICES_FILE"
    ):
        planned(photos, tune_instance_type=UNPRICED, budget_usd=100)


def test_the_log_tells_the_plan(
    photos: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LOCAL_AWS_URL", "http://127.0.0.1:1")
    monkeypatch.setattr(tasks, "client", service_client)
    monkeypatch.setattr(takeover, "target", lambda *_: takeover.Target("dogs", "dogs"))
    serving: list[BilledEndpoint] = [
        {
            "endpoint_name": "cats",
            "dataset_name": "cats",
            "instance_type": "ml.m5.large",
            "instance_count": 2,
            "usd_per_hour": None,
        }
    ]
    monkeypatch.setattr(takeover, "billed", lambda *_: serving)
    monkeypatch.setattr(objects, "ensure_bucket", lambda settings, s3: None)
    given = {**DEFAULTS, "data": photos, "tune_instance_type": UNPRICED, "tune_mode": "packed", "target": 0.9}
    with caplog.at_level(logging.INFO, "ml_pipeline.dag.tasks"):
        tasks.plan.function(given)
    told = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("tune") and line.endswith("price unknown") for line in told)
    assert any(line.startswith("train") and "$0." in line for line in told)
    assert "target=0.9 is ignored with tune_mode=packed" in told
    (billed,) = (line for line in told if line.startswith("endpoint cats"))
    assert "2 x ml.m5.large, $0.230 per hour" in billed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trialz": 50}, "'trialz' (did you mean trials"),
        ({"budget": 1}, "'budget' (did you mean budget_usd"),
        ({"dataset_nam": "dogs"}, "'dataset_nam' (did you mean dataset_name"),
        ({"tune_instance_type": "ml.m5.xxlarge"}, "tune_instance_type=ml.m5.xxlarge: SageMaker has no such"),
        ({"embed_instance_type": "ml.g4.xlarge"}, "(did you mean ml.g4dn.xlarge"),
        (
            {"train_on": "ec2", "train_instance_type": "ml.m5.huge"},
            "train_instance_type=m5.huge: EC2 has no such instance type",
        ),
        ({"architecture": "resnet5"}, "did you mean resnet50 or"),
        ({"teacher": "resnet5=w.pth"}, "did you mean resnet50 or"),
        (
            {"train_instance_type": "ml.m5.xlarge, ml.m5.xxlarge"},
            "train_instance_type=ml.m5.xxlarge: SageMaker has no such instance type (did you mean ml.m5.xlarge",
        ),
        ({"endpoint_instance_type": "ml.m5.large,ml.m5.large"}, "choose up to 5 different instance types"),
        ({"train_instance_type": "ml.m5.xlarge, ml.g5.xlarge"}, "choose all with a GPU or all without"),
        (
            {"train_on": "ec2", "train_instance_type": "ml.m5.xlarge, ml.m5.large"},
            "EC2 takes one instance type",
        ),
    ],
)
def test_plan_refuses_what_does_not_exist_before_anything_is_paid(
    photos: str, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.setenv("LOCAL_AWS_URL", "http://127.0.0.1:1")
    monkeypatch.setattr(tasks, "client", service_client)
    with pytest.raises(ValueError, match=re.escape(message)):
        tasks.plan.function({**DEFAULTS, "data": photos, **changes})


def test_many_new_photos_in_s3_are_prepared_by_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "MANY_PHOTOS", 10)
    monkeypatch.setattr(plan, "_PHOTOS_A_SHARD", 1)  # of 16 photos the requests cost nothing that is shown
    with bucket() as s3:
        store = Store(s3)
        settings = Settings(BUCKET, "arn:aws:iam::123456789012:role/jobs", "us-east-1")
        names = {"dataset_name": "dogs", "endpoint_name": "dogs"}

        def steps(files: dict[str, bytes], **changes: Any) -> tuple[Any, Planned]:
            data = store.source("dogs", files)
            made = plan.make({**DEFAULTS, **names, "data": data, **changes}, DEFAULTS, settings, s3)
            return {step["step"]: step for step in made["steps"]}.get("prepare"), made

        step, made = steps(shapes(8))
        assert (step["instance_type"], step["instance_count"]) == (machines.MANY_CORES, 1)
        assert made["machines"]["prepare_instance_type"] == machines.MANY_CORES
        assert made["requests_usd"] > 0
        assert steps(shapes(8), prepare_instance_type="worker")[0] is None
        abroad = replace(settings, region="eu-west-1")
        with pytest.raises(ValueError, match="cannot read it: copy the photos"):
            plan.make({**DEFAULTS, **names, "data": f"s3://{BUCKET}/in/dogs/"}, DEFAULTS, abroad, s3)
        assert steps(shapes(4))[0] is None
        upload(s3, BUCKET, "dogs", store.source("dogs", shapes(8)))
        # Two more than an upload has read: the worker reads them.
        step, made = steps(shapes(9))
        assert (step, made["machines"]["prepare_instance_type"]) == (None, "worker")
        assert steps(shapes(9), force=True)[0]["step"] == "prepare"
