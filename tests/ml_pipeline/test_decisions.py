"""Pure decisions: the gate, retraining, what to do about an endpoint, money, errors."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType, ParamValidationError
from airflow.sdk.execution_time.comms import ErrorResponse

from ml_pipeline.costs import plan, rates
from ml_pipeline.costs.prices import PriceError, Prices
from ml_pipeline.costs.rates import Rate
from ml_pipeline.dag import params
from ml_pipeline.dag.notifier import text
from ml_pipeline.errors import PaidWorkRetryPolicy, job_error
from ml_pipeline.operators.aws import AwsOperator
from ml_pipeline.operators.deploy import DeployEndpointOperator, next_step, rollback_reason
from ml_pipeline.operators.tuning import best_trials
from ml_pipeline.registry import gate, retraining
from ml_pipeline.registry.gate import Burden, Difference
from ml_pipeline.registry.packages import Package
from ml_pipeline.requests import packed
from ml_pipeline.requests.endpoint import Serving, update_endpoint
from ml_pipeline.requests.recipe import Recipe
from ml_pipeline.requests.tuning import TuneStrategy
from ml_pipeline.settings import Settings, SettingsError, airflow_connection
from model_code.hyperparameters import HyperparameterError, search_space
from tests.ml_pipeline.fake_sagemaker import client_error

SERVING = Serving(
    endpoint_name="dogs",
    model_uri="s3://bucket/model.tar.gz",
    image="123456789012.dkr.ecr.us-east-1.amazonaws.com/ml-pipeline-serving:1",
    role_arn="arn:aws:iam::123456789012:role/jobs",
    instance_type="ml.m5.large",
)
SERVES = {"EndpointStatus": "InService", "EndpointConfigName": SERVING.config_name}
PARAMS: dict[str, Any] = {
    "strategy": "head",
    "architecture": "mobilenet_v2",
    "seed": 0,
    "hyperparameters": {},
    "ranges": None,
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


def judged(right: int, wrong: int, start: int = 0) -> dict[str, bool]:
    return {f"{start + n}": n < right for n in range(right + wrong)}


# ---------------------------------------------------------------------------------------------------------- gate


def test_predictions_are_right_or_wrong() -> None:
    lines = [
        json.dumps({"key": "a", "label": "x", "prediction": "x"}),
        json.dumps({"key": "b", "label": "x", "prediction": "y"}),
    ]
    assert gate.correct("\n".join(lines).encode()) == {"a": True, "b": False}


def test_equal_models_differ_by_nothing() -> None:
    difference = gate.paired_difference(judged(80, 20), judged(80, 20))
    assert (difference.photos, difference.mean) == (100, 0.0)
    assert difference.low == -difference.high < 0
    assert gate.compare(difference, 0.0, Burden.CHAMPION).passed
    # A hundred photos do not show that no photo would be judged worse.
    assert not gate.compare(difference, 0.0, Burden.CHALLENGER).passed
    assert gate.compare(difference, 0.05, Burden.CHALLENGER).passed


def test_a_difference_has_an_interval_around_it() -> None:
    difference = gate.paired_difference(judged(90, 110), judged(70, 130))
    assert difference.mean == pytest.approx(0.1)
    assert 0.05 < difference.low < 0.1 < difference.high < 0.15


def test_who_bears_the_burden_of_proof_decides_close_cases() -> None:
    close = Difference(100, -0.02, -0.06, 0.02)
    assert gate.compare(close, 0.0, Burden.CHAMPION).passed
    assert not gate.compare(close, 0.0, Burden.CHALLENGER).passed
    assert gate.compare(close, 0.07, Burden.CHALLENGER).passed
    clearly_worse = Difference(1000, -0.05, -0.08, -0.02)
    assert not gate.compare(clearly_worse, 0.0, Burden.CHAMPION).passed


def test_models_judged_on_other_photos_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="no photo in common"):
        gate.paired_difference(judged(1, 1), judged(1, 1, start=5))


def test_a_first_model_must_only_clear_the_bar() -> None:
    evaluation = {"accuracy": 0.8, "photos": 100}
    assert gate.decide(evaluation, 10, 0.7).passed
    refused = gate.decide(evaluation, 10, 0.9)
    assert not refused.passed
    assert "0.8000 is below the bar of 0.9000" in refused.reason
    assert gate.decide(evaluation, 10, None).passed
    assert not gate.decide({"accuracy": 0.12, "photos": 100}, 10, None).passed


def test_the_bar_of_guessing() -> None:
    assert gate.better_than_guessing(2, 10**9) == pytest.approx(0.5, abs=1e-3)
    assert gate.better_than_guessing(10, 100) == pytest.approx(0.1 + 1.645 * 0.03)


# ---------------------------------------------------------------------------------------------------- retraining


def package(version: str) -> Package:
    return Package("arn:model", "Approved", "s3://bucket/m", "image", {"dataset_version": version})


@pytest.mark.parametrize(
    ("champion", "force", "train"),
    [
        (None, False, True),
        (package("1"), False, False),
        (package("1"), True, True),
        (package("0"), False, True),
    ],
)
def test_training_again_needs_a_reason(champion: Package | None, force: bool, train: bool) -> None:
    decision = retraining.decide({"name": "dogs", "version": "1"}, champion, force)
    assert decision.train is train
    assert "1" in decision.reason


# ---------------------------------------------------------------------------------------------------- deployment


@pytest.mark.parametrize(
    ("live", "step"),
    [
        ({"EndpointStatus": "Absent"}, "create"),
        ({"EndpointStatus": "Creating", "EndpointConfigName": SERVING.config_name}, "join"),
        ({"EndpointStatus": "Creating", "EndpointConfigName": "other"}, "wait"),
        (
            {
                "EndpointStatus": "Updating",
                "EndpointConfigName": "old",
                "PendingDeploymentSummary": {"EndpointConfigName": SERVING.config_name},
            },
            "join",
        ),
        (
            {
                "EndpointStatus": "Updating",
                "EndpointConfigName": "old",
                "PendingDeploymentSummary": {"EndpointConfigName": "another"},
            },
            "wait",
        ),
        ({"EndpointStatus": "RollingBack", "EndpointConfigName": SERVING.config_name}, "wait"),
        ({"EndpointStatus": "InService", "EndpointConfigName": SERVING.config_name}, "done"),
        ({"EndpointStatus": "InService", "EndpointConfigName": "old"}, "update"),
        ({"EndpointStatus": "Failed", "EndpointConfigName": "old"}, "delete"),
    ],
)
def test_what_to_do_about_an_endpoint(live: dict[str, Any], step: str) -> None:
    assert next_step(SERVING, live) == step


def test_a_rollback_names_the_alarm() -> None:
    event = {"status": "InService", "config": "old", "reason": ""}
    alarm = {"AlarmName": "dogs-5xx", "StateReason": "Threshold Crossed"}
    assert "alarm dogs-5xx: Threshold Crossed" in rollback_reason(SERVING, event, [alarm])
    assert "SageMaker gave no reason" in rollback_reason(SERVING, event, [])


def test_the_load_decides_on_the_number_of_machines_only_where_it_may() -> None:
    scaling = replace(SERVING, max_count=3)
    three = {**SERVES, "ProductionVariants": [{"DesiredInstanceCount": 3}]}
    assert (next_step(SERVING, three), next_step(scaling, three)) == ("resize", "done")
    assert not update_endpoint(SERVING, 3)["RetainAllVariantProperties"]
    assert update_endpoint(scaling, 3)["RetainAllVariantProperties"]


def test_one_machine_has_no_canary() -> None:
    def routing(live: int, count: int, most: int = 1) -> dict[str, Any]:
        update = update_endpoint(replace(SERVING, instance_count=count, max_count=most), live)
        policy = update["DeploymentConfig"]["BlueGreenUpdatePolicy"]
        found: dict[str, Any] = policy["TrafficRoutingConfiguration"]
        return found

    one_of_four = {"Type": "INSTANCE_COUNT", "Value": 1}
    assert routing(1, 1)["Type"] == "ALL_AT_ONCE"
    assert routing(4, 1)["Type"] == "ALL_AT_ONCE"
    assert routing(1, 4)["CanarySize"] == one_of_four
    assert routing(4, 1, most=5)["CanarySize"] == one_of_four


def test_a_rollout_may_take_longer_than_it_is_watched_and_is_waited_for() -> None:
    for bake in (0, 3600):
        policy = update_endpoint(replace(SERVING, bake_seconds=bake), 1)["DeploymentConfig"][
            "BlueGreenUpdatePolicy"
        ]
        assert bake < policy["MaximumExecutionTimeoutInSeconds"] <= 28_800
    longest = replace(SERVING, bake_seconds=3600).longest_rollout
    operator = DeployEndpointOperator(task_id="deploy", endpoint_name="dogs", package=None)
    assert operator.wait_timeout.total_seconds() > longest


# --------------------------------------------------------------------------------------------------------- money


def test_sagemaker_and_ec2_have_prices_of_their_own() -> None:
    prices = Prices.load()
    assert prices.hourly("ml.m5.xlarge") == 0.23
    assert prices.hourly("m5.xlarge") == 0.192
    assert prices.usd("ml.m5.xlarge", 1800, 2) == pytest.approx(0.23)
    assert prices.usd("ml.m5.xlarge", 3600, spot=True) < 0.23
    with pytest.raises(PriceError, match="ML_PIPELINE_PRICES_FILE"):
        prices.hourly("ml.p5.48xlarge")


def test_your_own_prices_lie_over_the_table(tmp_path: Any) -> None:
    mine = tmp_path / "prices.toml"
    mine.write_text('as_of = "2027-01-01"\n[sagemaker]\n"ml.m5.xlarge" = 0.5\n')
    settings = Settings("b", "arn:aws:iam::1:role/r", "us-east-1", prices_file=str(mine))
    prices = Prices.load(settings)
    assert (prices.as_of, prices.hourly("ml.m5.xlarge"), prices.hourly("ml.m5.large")) == (
        "2027-01-01",
        0.5,
        0.115,
    )


def test_an_estimate_counts_start_up_and_packing_saves_it() -> None:
    prices = Prices.load()
    steps = {step.step: step for step in plan.estimate(PARAMS, 12_000, prices)}
    assert set(steps) == {"embed", "tune", "train", "evaluate"}
    assert steps["tune"].seconds > 12 * 180
    packed_steps = {s.step: s for s in plan.estimate({**PARAMS, "tune_mode": "packed"}, 12_000, prices)}
    assert packed_steps["tune"].usd < steps["tune"].usd / 5
    fine = {s.step for s in plan.estimate({**PARAMS, "strategy": "finetune"}, 12_000, prices)}
    assert fine == {"tune", "train", "evaluate"}


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
    with pytest.raises(plan.OverBudget, match=r"dearest step is tune.*packed"):
        plan.check_budget(1.0, 0.5, steps)


def test_machines_are_compared_by_what_was_measured_and_nothing_else() -> None:
    rate = Rate("embed", "mobilenet_v2", "ml.m5.xlarge", 100.0, rates.THIS_MACHINE, "embed-1")
    table = rates.comparison([rate], Prices.load(), "mobilenet_v2")
    assert table[0]["usd_per_million_photos"] == pytest.approx(0.23 / 3600 / 100 * 1e6, rel=1e-4)
    assert table[0]["measured"] == "this machine"
    assert all(row["measured"] == "nobody measured it" for row in table[1:])
    assert all(row["usd_per_million_photos"] is None for row in table[1:])


def test_the_last_rate_of_a_log_counts() -> None:
    assert rates.in_log(["photos_per_second=1.5", "noise", "valid_loss=1 photos_per_second=20.25"]) == 20.25
    assert rates.in_log(["nothing"]) is None


# -------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("error", "retried"),
    [
        (client_error("ThrottlingException", "slow"), True),
        (
            client_error("503", "Service Unavailable", status=503),
            True,
        ),  # without a body, as load balancers answer
        (client_error("501", "not supported", status=501), False),
        (client_error("ResourceLimitExceeded", "quota"), False),
        (client_error("ValidationException", "bad"), False),
        (job_error("j", "Failed", "CapacityError: Unable to provision requested ML compute capacity."), True),
        (job_error("j", "Failed", "AlgorithmError: ExecuteUserScriptError"), False),
        (ConnectionRefusedError(), True),
        (AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR)), True),
        (AirflowRuntimeError(ErrorResponse(error=ErrorType.PERMISSION_DENIED)), False),
        (ValueError("bug"), False),
    ],
)
def test_only_what_may_pass_is_retried(error: BaseException, retried: bool) -> None:
    decision = PaidWorkRetryPolicy().evaluate(error, 1, 2)
    assert (decision.action.value == "retry") is retried


def test_a_packed_search_cannot_do_what_only_sagemaker_can() -> None:
    with pytest.raises(ValueError, match="packed"):
        packed.packed_hyperparameters(Recipe("head", "resnet18"), 3, TuneStrategy.HYPERBAND)
    recipe = Recipe("head", "resnet18", 1, {"epochs": 3}, {"mixup": None})
    assert packed.packed_hyperparameters(recipe, 3, TuneStrategy.RANDOM) == {
        **{"strategy": "head", "architecture": "resnet18", "seed": "1", "epochs": "3"},
        **{"trials": "3", "search": "random", "ranges": '"{\\"mixup\\": null}"'},
    }


def test_what_is_fixed_is_not_searched_and_reaches_every_job() -> None:
    recipe = Recipe("head", "resnet18", 7, {"dropout": 0.25, "epochs": 50})
    tuned = {entry["Name"] for entries in recipe.parameter_ranges.values() for entry in entries}
    assert "dropout" not in tuned
    assert tuned
    assert (recipe.of_trials()["dropout"], recipe.of_trials()["epochs"]) == ("0.25", "50")
    assert not tuned & set(recipe.of_trials())
    final = recipe.of_final({"mixup": "0.5"})
    assert (final["dropout"], final["mixup"], final["seed"], final["mode"]) == ("0.25", "0.5", "7", "final")


@pytest.mark.parametrize(
    ("hyperparameters", "ranges", "message"),
    [
        ({"blocks": 2}, None, "means nothing to strategy=head"),
        ({"dropout": 2}, None, "out of bounds"),
        ({"seed": 2}, None, "param of its own"),
        ({"dropout": 0.1}, {"dropout": {"low": 0, "high": 0.5}}, "take it out of one"),
        (dict.fromkeys(search_space("head"), 0.1), None, "nothing to search"),
        ({}, {"droput": None}, "unknown"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(
    hyperparameters: dict[str, Any], ranges: dict[str, Any] | None, message: str
) -> None:
    with pytest.raises(HyperparameterError, match=message):
        Recipe("head", "resnet18", 0, hyperparameters, ranges)


def test_the_best_trials_are_listed() -> None:
    trials = [{"name": str(n), "value": value} for n, value in enumerate((0.1, None, 0.9, 0.0))]
    assert [trial["value"] for trial in best_trials(trials, 3)] == [0.9, 0.1, 0.0]
    assert best_trials(trials, 9)[-1]["value"] is None


def test_a_message_says_what_where_and_why() -> None:
    context = {"dag_run": {"dag_id": "d", "run_id": "r"}, "ti": {"task_id": "t", "log_url": "http://x"}}
    subject, message = text("failed", {**context, "exception": ValueError("no photos")})
    assert subject == "ml-pipeline failed: d"
    assert message == "d/r/t\nno photos\nlog: http://x"


# ------------------------------------------------------------------------------------------------------ settings


def test_local_settings_need_nothing_and_aws_needs_its_own() -> None:
    local = Settings.load({"LOCAL_AWS_URL": "http://127.0.0.1:4566/"})
    assert (local.local, local.bucket, local.region) == (True, "ml-pipeline", "us-east-1")
    with pytest.raises(SettingsError, match="ML_PIPELINE_BUCKET"):
        Settings.load({})
    aws = Settings.load(
        {
            "ML_PIPELINE_BUCKET": "mine",
            "ML_PIPELINE_ROLE_ARN": "arn:aws:iam::1:role/r",
            "AWS_DEFAULT_REGION": "eu-west-1",
        }
    )
    assert (aws.local, aws.poll_seconds) == (False, 30.0)


def test_the_network_of_jobs_is_read_from_the_environment() -> None:
    environment = {
        "LOCAL_AWS_URL": "http://127.0.0.1:4566",
        "ML_PIPELINE_JOB_SUBNET_IDS": "subnet-a, subnet-b",
        "ML_PIPELINE_JOB_SECURITY_GROUP_IDS": "sg-1",
        "ML_PIPELINE_VOLUME_KEY": "alias/x",
        "ML_PIPELINE_ISOLATE_JOBS": "true",
    }
    network = Settings.load(environment).network
    assert network.vpc == {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-a", "subnet-b"]}
    assert (network.volume_key, network.isolated, network.encrypt_traffic) == ("alias/x", True, False)
    with pytest.raises(SettingsError, match="ISOLATE_JOBS is 'yes'"):
        Settings.load({**environment, "ML_PIPELINE_ISOLATE_JOBS": "yes"})
    with pytest.raises(SettingsError, match="JOB_SECURITY_GROUP_IDS"):
        Settings.load({**environment, "ML_PIPELINE_JOB_SECURITY_GROUP_IDS": ""})


def test_a_team_has_its_own_defaults_of_params(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PIPELINE_DEFAULTS", '{"trials": 20, "data": "s3://team/photos", "dry_run": false}')
    training = params.train_and_deploy()
    assert (training["trials"].value, training["data"].value) == (20, "s3://team/photos")
    assert training["trials"].schema["maximum"] == 750
    assert params.scheduled_retraining()["data"].value == "s3://team/photos"
    assert params.janitor()["dry_run"].value is False
    monkeypatch.setenv("ML_PIPELINE_DEFAULTS", "[]")
    with pytest.raises(SettingsError, match="give a JSON object"):
        params.train_and_deploy()
    monkeypatch.setenv("ML_PIPELINE_DEFAULTS", '{"trials": 0}')
    with pytest.raises(ParamValidationError):
        params.train_and_deploy()


def test_operators_take_the_connection_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_AWS_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("ML_PIPELINE_AWS_CONN_ID", "team_aws")
    assert AwsOperator(task_id="a").access.aws_conn_id == "team_aws"
    assert AwsOperator(task_id="b", aws_conn_id="own").access.aws_conn_id == "own"


def test_the_connection_reaches_every_service_at_one_address() -> None:
    connection = json.loads(airflow_connection("http://127.0.0.1:4566"))
    assert connection["extra"]["endpoint_url"] == "http://127.0.0.1:4566"
    assert connection["extra"]["service_config"]["sts"]["endpoint_url"] == "http://127.0.0.1:4566"
