"""The estimate of a run: steps, seconds, dollars."""

from __future__ import annotations

from typing import Any

import pytest

from ml_pipeline.costs import machines, plan, rates
from ml_pipeline.costs.prices import Prices
from ml_pipeline.costs.rates import Rate

# Of a million photos: a GET each (0.40 USD), listings, and per shard of 600 two PUTs, one of them of its thumbnails.
REQUESTS = 0.42
PARAMS: dict[str, Any] = {
    "strategy": "head",
    "architecture": "mobilenet_v2",
    "seed": 0,
    "hyperparameters": {},
    "ranges": None,
    "teacher": "",
    "views": 1,
    "trials": 12,
    "tune_mode": "job",
    "tune_strategy": "Bayesian",
    "parallel_trials": 2,
    "spot": False,
    "keep_alive": 0,
    "train_on": "sagemaker",
    "embed_instance_type": "ml.g4dn.xlarge",
    "embed_instance_count": 2,
    "tune_instance_type": "ml.m5.xlarge",
    "train_instance_type": "ml.m5.xlarge",
    "train_instance_count": 1,
    "evaluate_instance_type": "ml.m5.xlarge",
}


def test_an_estimate_counts_start_up_and_packing_saves_it() -> None:
    prices = Prices.load()
    steps = {step.step: step for step in plan.estimate(PARAMS, 12_000, prices)}
    assert set(steps) == {"embed", "tune", "train", "evaluate"}
    assert steps["tune"].seconds > 12 * 180
    packed_steps = {s.step: s for s in plan.estimate({**PARAMS, "tune_mode": "packed"}, 12_000, prices)}
    assert packed_steps["tune"].usd < steps["tune"].usd / 5
    fine = {s.step for s in plan.estimate({**PARAMS, "strategy": "finetune"}, 12_000, prices)}
    assert fine == {"tune", "train", "evaluate"}


def test_a_teacher_is_embedded_at_its_own_rate_with_any_strategy() -> None:
    fast = Rate("embed", "resnet50", "ml.g4dn.xlarge", 1e9, rates.AWS, "embed-1")
    for strategy in ("head", "finetune"):
        params = {**PARAMS, "strategy": strategy, "teacher": "resnet50=w.pth"}
        slow, quick = (
            {s.step: s for s in plan.estimate(params, 12_000, Prices.load(), known)} for known in ([], [fast])
        )
        assert slow["embed_teacher"].job_seconds > quick["embed_teacher"].job_seconds
        alone = {s.step: s for s in plan.estimate({**params, "teacher": ""}, 12_000, Prices.load())}
        assert slow["tune"] == quick["tune"]
        assert slow["tune"].job_seconds > alone["tune"].job_seconds
        assert slow["train"].job_seconds > alone["train"].job_seconds


def test_views_are_embedded_but_an_epoch_draws_one_of_each_photo() -> None:
    one, four = (
        {s.step: s for s in plan.estimate({**PARAMS, "views": v}, 10**6, Prices.load())} for v in (1, 4)
    )
    assert four["embed"].seconds > 2 * one["embed"].seconds
    assert four["tune"] == one["tune"]
    assert four["train"] == one["train"]


def test_what_changes_the_machines_changes_the_estimate() -> None:
    prices = Prices.load()

    def step(name: str, **changes: object) -> plan.Step:
        return {s.step: s for s in plan.estimate({**PARAMS, **changes}, 12_000, prices)}[name]

    assert step("tune", spot=True).usd == pytest.approx(0.55 * step("tune").usd)
    assert step("tune", keep_alive=600).seconds == pytest.approx(step("tune").seconds + 2 * 600)
    assert step("ec2", train_on="ec2").instance_type == "m5.xlarge"
    assert step("ec2", train_on="ec2").usd < step("train").usd
    longer = step("train", hyperparameters={"epochs": 300})
    assert longer.seconds > step("train").seconds


def test_what_a_job_measured_replaces_the_assumption() -> None:
    fast = Rate("embed", "mobilenet_v2", "ml.g4dn.xlarge", 1e9, rates.AWS, "embed-1")
    prices = Prices.load()
    assumed = plan.estimate(PARAMS, 1_000_000, prices)[0]
    measured = plan.estimate(PARAMS, 1_000_000, prices, [fast])[0]
    assert measured.seconds < assumed.seconds
    assert measured.seconds == pytest.approx(180, abs=1)


def test_a_run_over_budget_is_refused_and_told_what_to_change() -> None:
    steps = plan.estimate(PARAMS, 12_000, Prices.load())
    plan.check_budget(1.0, None, steps)
    plan.check_budget(1.0, 1.0, steps)
    with pytest.raises(plan.OverBudget, match=r"most expensive step is tune.*packed"):
        plan.check_budget(1.0, 0.5, steps)


def test_a_million_photos_are_prepared_and_embedded_for_half_a_dollar() -> None:
    """By the prices and the assumptions of prices.toml, at one view; S3's requests are said apart."""
    prices = Prices.load()
    machine = machines.of_preparing("auto", 10**6)
    params = {**PARAMS, "embed_instance_count": 1, "prepare_instance_type": machine}
    steps = {step.step: step for step in plan.estimate(params, 10**6, prices, (), 10**6)}
    assert steps["prepare"].instance_type == machine
    # 180 s until it starts, 1000 photos/s to its disk, 100 photos/s of each of 8 vCPUs.
    assert steps["prepare"].seconds == 180 + 1000 + 1250
    assert (steps["prepare"].usd or 1) + (steps["embed"].usd or 1) <= 0.50
    s3 = {"data": "s3://team/photos", "prepare_instance_type": machine}
    assert plan.requests_usd(s3, 10**6, 10**6, prices) == pytest.approx(REQUESTS, abs=0.005)
    assert plan.requests_usd({**s3, "data": "/photos"}, 10**6, 0, prices) == 0


def test_a_version_is_made_where_it_costs_least_trouble() -> None:
    assert machines.of_preparing("auto", 49_999) == machines.of_preparing(None, 0) == "worker"
    assert machines.of_preparing("", 50_000) == "ml.c5.2xlarge"
    assert machines.of_preparing("worker", 10**6) == "worker"
    assert machines.of_preparing("ml.m5.4xlarge", 1) == "ml.m5.4xlarge"
    assert machines.of_preparing("ml.m5.4xlarge", 0) == "worker"
    # A disk of EBS has 16 TB at most.
    assert machines.of_preparing("auto", 10**6, 15 * 2**40) == "worker"
    with pytest.raises(ValueError, match=r"16,916 GB, and the largest has 16,384: .*=worker, which reads"):
        machines.of_preparing("ml.m5.4xlarge", 10**6, 15 * 2**40)
    small = plan.estimate({**PARAMS, "prepare_instance_type": "worker"}, 100, Prices.load(), (), 100)
    assert "prepare" not in {step.step for step in small}


@pytest.mark.parametrize(
    ("machine", "vcpus"),
    [("ml.m5.large", 2), ("ml.m5.xlarge", 4), ("ml.c5.9xlarge", 36), ("ml.t2.medium", 1)],
)
def test_the_size_of_a_machine_tells_its_vcpus(machine: str, vcpus: int) -> None:
    assert Prices.load().assumed_rate("prepare", machine) == 100 * vcpus
