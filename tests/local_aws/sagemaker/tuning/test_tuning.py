"""Tuning jobs through boto3: strategies, stopping rules, counters and the best job."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local_aws.cloud import ENDED, Cloud, eventually
from tests.local_aws.tuning import EPOCHS, SCORE, categories, ended, log_range, request, run, trials

SEED_WITH_A_LATE_BAD_TRIAL = 7


def test_bayesian_search_finds_the_best_and_counts_every_trial(cloud: Cloud) -> None:
    tuning = request(
        cloud, SCORE, Strategy="Bayesian", RandomSeed=3,
        ResourceLimits={"MaxNumberOfTrainingJobs": 10, "MaxParallelTrainingJobs": 3},
    )  # fmt: skip
    name = tuning["HyperParameterTuningJobName"]
    cloud.sagemaker.create_hyper_parameter_tuning_job(**tuning, Tags=[{"Key": "run", "Value": "1"}])
    sums = set()

    def look() -> Any:
        job = cloud.sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
        counters = job["TrainingJobStatusCounters"]
        assert counters["InProgress"] <= 3
        assert sum(counters.values()) == sum(job["ObjectiveStatusCounters"].values())
        sums.add(sum(counters.values()))
        return job if job["HyperParameterTuningJobStatus"] in ENDED else None

    job = eventually(look, 60)
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert job["TrainingJobStatusCounters"]["Completed"] == 10
    assert job["ObjectiveStatusCounters"] == {"Succeeded": 10, "Pending": 0, "Failed": 0}

    ranked = trials(cloud, name, SortBy="FinalObjectiveMetricValue", SortOrder="Descending")
    values = [trial["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] for trial in ranked]
    assert len(ranked) == 10
    assert values == sorted(values, reverse=True)
    best = job["BestTrainingJob"]
    assert best["TrainingJobName"] == ranked[0]["TrainingJobName"]
    assert best["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] == values[0]
    assert 0.0001 <= float(best["TunedHyperParameters"]["rate"]) <= 1
    child = cloud.sagemaker.describe_training_job(TrainingJobName=best["TrainingJobName"])
    assert child["TuningJobArn"] == job["HyperParameterTuningJobArn"]
    assert child["HyperParameters"]["_tuning_objective_metric"] == "score"
    assert cloud.sagemaker.list_tags(ResourceArn=child["TrainingJobArn"])["Tags"] == [
        {"Key": "run", "Value": "1"}
    ]


def test_random_seed_gives_the_same_points_again(cloud: Cloud) -> None:
    found = []
    for _ in range(2):
        tuning = request(cloud, SCORE, RandomSeed=11)
        run(cloud, tuning)
        points = trials(cloud, tuning["HyperParameterTuningJobName"])
        found.append(sorted(trial["TunedHyperParameters"]["rate"] for trial in points))
    assert found[0] == found[1]
    assert len(set(found[0])) == 4


def test_grid_tries_every_combination_and_failures_are_counted(cloud: Cloud) -> None:
    ranges = {
        "CategoricalParameterRanges": [
            {"Name": "kind", "Values": ["a", "broken"]},
            {"Name": "width", "Values": ["1", "2"]},
        ]
    }
    tuning = request(
        cloud, SCORE, Strategy="Grid", ParameterRanges=ranges, ResourceLimits={"MaxParallelTrainingJobs": 2}
    )  # fmt: skip
    job = run(cloud, tuning)
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert job["TrainingJobStatusCounters"] == {
        "Completed": 2, "InProgress": 0, "RetryableError": 0, "NonRetryableError": 2, "Stopped": 0,
    }  # fmt: skip
    points = {
        tuple(sorted(t["TunedHyperParameters"].items()))
        for t in trials(cloud, tuning["HyperParameterTuningJobName"])
    }
    assert len(points) == 4
    assert job["BestTrainingJob"]["TunedHyperParameters"]["kind"] == "a"


def test_a_tuning_job_whose_trials_all_fail_has_failed(cloud: Cloud) -> None:
    tuning = request(
        cloud,
        "raise SystemExit(2)",
        ResourceLimits={"MaxNumberOfTrainingJobs": 20, "MaxParallelTrainingJobs": 4},
    )
    job = run(cloud, tuning)
    assert job["HyperParameterTuningJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("No training job succeeded after ")
    assert sum(job["TrainingJobStatusCounters"].values()) < 12
    assert "BestTrainingJob" not in job


@pytest.mark.parametrize("strategy", ["Random", "Hyperband"])
def test_hopeless_trials_are_stopped_early(cloud: Cloud, strategy: str) -> None:
    config: dict[str, Any] = {
        "Strategy": strategy,
        "ParameterRanges": categories("quality", "good-1", "good-2", "good-3", "good-4", "bad"),
        "RandomSeed": SEED_WITH_A_LATE_BAD_TRIAL,
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 6, "MaxParallelTrainingJobs": 1},
    }
    if strategy == "Random":
        config["TrainingJobEarlyStoppingType"] = "Auto"
    else:
        config["StrategyConfig"] = {"HyperbandStrategyConfig": {"MinResource": 2, "MaxResource": 20}}
    tuning = request(cloud, EPOCHS, **config)
    job = run(cloud, tuning)
    assert job["HyperParameterTuningJobStatus"] == "Completed", job["FailureReason"]
    stopped = trials(cloud, tuning["HyperParameterTuningJobName"], StatusEquals="Stopped")
    assert [trial["TunedHyperParameters"]["quality"] for trial in stopped] == ["bad"]
    assert job["BestTrainingJob"]["TunedHyperParameters"]["quality"].startswith("good")


def test_reaching_the_target_ends_the_job(cloud: Cloud) -> None:
    tuning = request(
        cloud, SCORE, TuningJobCompletionCriteria={"TargetObjectiveMetricValue": -10.0},
        ResourceLimits={"MaxNumberOfTrainingJobs": 30, "MaxParallelTrainingJobs": 1},
    )  # fmt: skip
    job = run(cloud, tuning)
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert sum(job["TrainingJobStatusCounters"].values()) == 1


def test_warm_start_learns_from_its_parent_and_knows_the_best_of_both(cloud: Cloud) -> None:
    parent = request(cloud, SCORE, RandomSeed=1)
    first = run(cloud, parent)
    child = request(
        cloud, SCORE, Strategy="Bayesian", ResourceLimits={"MaxNumberOfTrainingJobs": 1, "MaxParallelTrainingJobs": 1}
    )  # fmt: skip
    child["WarmStartConfig"] = {
        "ParentHyperParameterTuningJobs": [
            {"HyperParameterTuningJobName": parent["HyperParameterTuningJobName"]}
        ],
        "WarmStartType": "IdenticalDataAndAlgorithm",
    }
    job = run(cloud, child)
    best = max(
        tuning["BestTrainingJob"]["FinalHyperParameterTuningJobObjectiveMetric"]["Value"]
        for tuning in (first, job)
    )
    assert job["OverallBestTrainingJob"]["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] == best


def test_stop_ends_the_trials_too(cloud: Cloud) -> None:
    tuning = request(cloud, "import time\nwhile True: time.sleep(0.1)")
    name = tuning["HyperParameterTuningJobName"]
    cloud.sagemaker.create_hyper_parameter_tuning_job(**tuning)
    eventually(lambda: len(trials(cloud, name)) >= 2)
    cloud.sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    job = ended(cloud, name)
    assert job["HyperParameterTuningJobStatus"] == "Stopped"
    assert {trial["TrainingJobStatus"] for trial in trials(cloud, name)} == {"Stopped"}
    cloud.sagemaker.delete_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    with pytest.raises(ClientError, match="can't find a tuning job called") as caught:
        cloud.sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    assert caught.value.response["Error"]["Code"] == "ResourceNotFound"


def test_two_definitions_share_the_budget(cloud: Cloud) -> None:
    tuning = request(cloud, SCORE)
    first = tuning.pop("TrainingJobDefinition")
    config = tuning["HyperParameterTuningJobConfig"]
    ranges, objective = config.pop("ParameterRanges"), config.pop("HyperParameterTuningJobObjective")
    first |= {"HyperParameterRanges": ranges, "TuningObjective": objective}
    tuning["TrainingJobDefinitions"] = [
        {**first, "DefinitionName": "one"},
        {**first, "DefinitionName": "two"},
    ]
    job = run(cloud, tuning)
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    names = [t["TrainingJobDefinitionName"] for t in trials(cloud, tuning["HyperParameterTuningJobName"])]
    assert sorted(names) == ["one", "one", "two", "two"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ParameterRanges": {"ContinuousParameterRanges": [log_range("rate", "0", "1")]}},
         "Logarithmic scaling of rate needs a MinValue greater than 0"),
        ({"ParameterRanges": {"ContinuousParameterRanges": [log_range("rate", "2", "1")]}},
         "The range of rate is empty"),
        ({"ParameterRanges": {}}, "at least one parameter range"),
        ({"HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "other"}},
         "A metric is required for this hyperparameter tuning job objective"),
        ({"Strategy": "Grid"}, "categorical parameter ranges only"),
        ({"Strategy": "Hyperband", "TrainingJobEarlyStoppingType": "Auto"}, "must be Off with the Hyperband strategy"),
        ({"ResourceLimits": {"MaxNumberOfTrainingJobs": 1, "MaxParallelTrainingJobs": 2}}, "must not be greater"),
    ],
)  # fmt: skip
def test_requests_that_aws_refuses(cloud: Cloud, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ClientError, match=message) as caught:
        cloud.sagemaker.create_hyper_parameter_tuning_job(**request(cloud, SCORE, **change))
    assert caught.value.response["Error"]["Code"] == "ValidationException"


def test_autotune_is_refused_for_sagemaker_keeps_its_ranges_to_itself(cloud: Cloud) -> None:
    tuning = request(cloud, SCORE) | {"Autotune": {"Mode": "Enabled"}}
    with pytest.raises(ClientError, match="Autotune is not supported by local_aws: give parameter ranges"):
        cloud.sagemaker.create_hyper_parameter_tuning_job(**tuning)
    auto = {"AutoParameters": [{"Name": "rate", "ValueHint": "0.1"}]}
    with pytest.raises(ClientError, match="AutoParameters need Autotune"):
        cloud.sagemaker.create_hyper_parameter_tuning_job(**request(cloud, SCORE, ParameterRanges=auto))
