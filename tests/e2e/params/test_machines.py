"""Params that change where and how a model is trained, each on a real run."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from ml_pipeline.dataset.version import load, training_channels
from ml_pipeline.requests.job import Compute
from ml_pipeline.requests.recipe import Recipe
from ml_pipeline.requests.training import Training, training_job
from model_code.hyperparameters import metric_definitions
from tests.e2e.params.conftest import Told
from tests.e2e.params.stage import Stage

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(1200)]


def test_two_machines_share_the_shards_and_two_train_one_model(stage: Stage, first: str) -> None:
    embedded, trained = stage.result(first, "embed"), stage.result(first, "train")
    assert embedded["embedded"] == embedded["shards"] >= 2
    assert stage.machines("/aws/sagemaker/ProcessingJobs", embedded["job_name"]) == 2
    assert stage.machines("/aws/sagemaker/TrainingJobs", trained["training_job_name"]) == 2
    smoke_test = stage.result(first, "smoke_test")
    assert smoke_test["agreed"] == smoke_test["photos"] > 0


def test_a_teacher_is_embedded_once_and_asked_by_every_trial(stage: Stage, first: str) -> None:
    embedded = stage.result(first, "embed_teacher")
    assert embedded["embedded"] == embedded["shards"] >= 2
    assert embedded["embedder_id"] != stage.result(first, "embed")["embedder_id"]
    jobs = [trial["name"] for trial in stage.result(first, "tune")["trials"]]
    for job in (*jobs, stage.result(first, "train")["training_job_name"]):
        found = stage.client("logs").filter_log_events(
            logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{job}/"
        )["events"]
        assert any("the teacher is right on" in event["message"] for event in found), job


def test_machines_are_kept_warm_for_the_next_trial(stage: Stage, first: str) -> None:
    sagemaker = stage.client("sagemaker")
    trials = sorted(
        (
            sagemaker.describe_training_job(TrainingJobName=trial["name"])
            for trial in stage.result(first, "tune")["trials"]
        ),
        key=lambda trial: trial["CreationTime"],
    )
    assert [trial["ResourceConfig"]["KeepAlivePeriodInSeconds"] for trial in trials] == [300, 300]
    assert trials[0]["WarmPoolStatus"]["Status"] == "Reused"
    assert trials[0]["WarmPoolStatus"]["ReusedByJob"] == trials[1]["TrainingJobName"]


def test_the_endpoint_scales_with_its_load(stage: Stage, first: str) -> None:
    resource = "endpoint/dogs/variant/main"
    scaling = stage.client("application-autoscaling")
    found = {"ServiceNamespace": "sagemaker", "ResourceId": resource}
    (policy,) = scaling.describe_scaling_policies(**found)["ScalingPolicies"]
    assert policy["PolicyType"] == "TargetTrackingScaling"
    (target,) = scaling.describe_scalable_targets(ServiceNamespace="sagemaker", ResourceIds=[resource])[
        "ScalableTargets"
    ]
    assert (target["MinCapacity"], target["MaxCapacity"]) == (1, 3)


def test_people_are_told_of_a_deployment(told: Told, first: str) -> None:
    assert "deploy" in told.of(first, "deployed")


def test_a_run_over_budget_is_refused_before_anything_starts(stage: Stage, told: Told) -> None:
    run_id = stage.start(budget_usd=0.001)
    stage.finish(run_id, "failed")
    states = stage.states(run_id)
    assert states["plan"] == "failed"
    assert {states[task] for task in ("upload", "weights", "embed", "tune", "train")} == {"upstream_failed"}
    assert stage.jobs(run_id) == {}
    assert "over budget_usd=0.001" in stage.log(run_id, "plan")
    assert "over budget_usd=0.001" in told.of(run_id, "failed")


def test_force_computes_anew_and_a_search_starts_from_the_last_one(stage: Stage, first: str) -> None:
    run_id = stage.run(
        dataset_name="dogs", endpoint_name="dogs", force=True, tune_mode="job", warm_start=True
    )
    embedded = stage.result(run_id, "embed")
    assert embedded["embedded"] == embedded["shards"] > 0
    tuning = stage.client("sagemaker").describe_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=stage.result(run_id, "tune")["tuning_job_name"]
    )
    parents = tuning["WarmStartConfig"]["ParentHyperParameterTuningJobs"]
    assert parents == [{"HyperParameterTuningJobName": stage.result(first, "tune")["tuning_job_name"]}]


def test_a_spot_machine_is_taken_away_and_finetuning_resumes(stage: Stage, first: str) -> None:
    run_id = stage.start(
        dataset_name="dogs",
        endpoint_name="spot",
        strategy="finetune",
        spot=True,
        hyperparameters={"epochs": 5, "patience": 0, "blocks": 1},
    )
    job = stage.wait(
        lambda: next((name for name in stage.jobs(run_id) if name.startswith("train-")), None),
        "the training job",
    )
    s3, sagemaker = stage.client("s3"), stage.client("sagemaker")

    def fitted() -> bool:
        """A head fitted on frozen features leaves the first checkpoint, the fine-tuned network the second."""
        found = s3.list_objects_v2(Bucket="ml-pipeline", Prefix=f"jobs/{job}/checkpoints/").get(
            "Contents", []
        )
        return len({entry["Key"].split("/")[3] for entry in found}) > 1

    stage.wait(fitted, "the fit's checkpoint")
    interrupted = subprocess.run(
        [sys.executable, "-m", "local_aws", "interrupt", "--state", str(stage.settings.local_aws_state), job],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert interrupted.returncode == 0, interrupted.stderr
    stage.finish(run_id, "success")
    assert stage.result(run_id, "train")["training_job_name"] == job
    history = sagemaker.describe_training_job(TrainingJobName=job)["SecondaryStatusTransitions"]
    assert "Interrupted" in [step["Status"] for step in history]
    assert "resuming after epoch" in stage.log(run_id, "train")
    assert set(stage.jobs(run_id).values()) == {"Completed"}


def test_shards_that_fit_on_no_disk_are_read_in_place(stage: Stage, first: str) -> None:
    """The channels of FastFile mode mount all shards of the data set; the photos are those of File mode."""
    sagemaker = stage.client("sagemaker")
    done = sagemaker.describe_training_job(TrainingJobName=stage.result(first, "train")["training_job_name"])
    (code,) = (one for one in done["InputDataConfig"] if one["ChannelName"] == "code")
    version = load(stage.client("s3"), stage.result(first, "upload")["manifest_uri"])
    recipe = Recipe("finetune", "squeezenet1_1", 3, {"epochs": 2, "blocks": 1, "patience": 0})
    job = Training(
        image=done["AlgorithmSpecification"]["TrainingImage"],
        role_arn=done["RoleArn"],
        script="train.py",
        code_uri=code["DataSource"]["S3DataSource"]["S3Uri"],
        hyperparameters=recipe.of_trials(),
        channels=training_channels(version, recipe.strategy, None, None, final=False),
        compute=Compute("ml.m5.xlarge"),
        outputs_uri=done["OutputDataConfig"]["S3OutputPath"],
        metrics=metric_definitions(),
    )
    metrics = {}
    for name, times in (("on-disk", 1), ("in-place", 2**40)):
        channels = [replace(one, bytes=one.bytes * times) for one in job.channels]
        request = training_job(name, replace(job, channels=channels))
        modes = {one["ChannelName"]: one["InputMode"] for one in request["InputDataConfig"]}
        assert modes["train"] == modes["valid"] == ("File" if name == "on-disk" else "FastFile")
        sagemaker.create_training_job(**request)
        stage.wait(partial(ended, stage, name), name)
        ran = sagemaker.describe_training_job(TrainingJobName=name)
        assert ran["TrainingJobStatus"] == "Completed", ran["FailureReason"]
        found = {one["MetricName"]: one["Value"] for one in ran["FinalMetricDataList"]}
        del found["photos_per_second"]
        metrics[name] = found
    assert metrics["in-place"] == metrics["on-disk"] != {}


def ended(stage: Stage, job: str) -> bool:
    """Tell whether a training job has ended."""
    described = stage.client("sagemaker").describe_training_job(TrainingJobName=job)
    return described["TrainingJobStatus"] != "InProgress"


def test_sagemaker_and_ec2_make_the_same_model(stage: Stage, first: str) -> None:
    teacher = stage.result(first, "register")["model_package_arn"]
    conf: dict[str, Any] = {"dataset_name": "dogs", "seed": 7, "teacher": teacher}
    runs = [
        stage.start(**conf, endpoint_name="sagemaker"),
        stage.start(**conf, endpoint_name="ec2", train_on="ec2", approval="human"),
    ]
    stage.approve(runs[1])
    for run_id in runs:
        stage.finish(run_id, "success")
        assert stage.result(run_id, "embed")["embedded"] == 0
    assert stage.states(runs[0])["ec2.train"] == "skipped"
    assert stage.states(runs[1])["train"] == "skipped"
    assert judged(stage, runs[0]) == judged(stage, runs[1])
    reservations = stage.client("ec2").describe_instances()["Reservations"]
    assert {entry["State"]["Name"] for group in reservations for entry in group["Instances"]} == {
        "terminated"
    }


def judged(stage: Stage, run_id: str) -> dict[str, Any]:
    """evaluation.json without times, the champion and the archive's name; the predictions; the model's files."""
    result = stage.result(run_id, "evaluate")
    evaluation = json.loads(stage.object(result["evaluation_uri"]))
    for name in ("latency", "photos_per_second", "comparison"):
        evaluation.pop(name)
    # The archive's own bytes hold the time at which each file was written.
    evaluation["model"].pop("sha256")
    with tarfile.open(fileobj=io.BytesIO(stage.object(result["model_uri"]))) as archive:
        files = {
            member.name.removeprefix("./"): hashlib.sha256(archive.extractfile(member).read()).hexdigest()
            for member in archive
            if member.isfile()
        }
    assert "model.safetensors" in files
    return {"evaluation": evaluation, "predictions": stage.object(result["predictions_uri"]), "files": files}
