"""Search hyperparameters with a SageMaker tuning job, or inside a single training job."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Unpack

from ml_pipeline.aws import jobs
from ml_pipeline.aws import s3 as objects
from ml_pipeline.aws.jobs import JobKind
from ml_pipeline.errors import JobFailed
from ml_pipeline.operators.job import Request
from ml_pipeline.operators.training import FittingOperator, FittingOptions
from ml_pipeline.requests import packed
from ml_pipeline.requests.recipe import Recipe
from ml_pipeline.requests.search import SEARCH, TuneMode, search_of, trials_of
from ml_pipeline.requests.training import Training, training_job
from ml_pipeline.requests.tuning import TuneStrategy, Tuning, trial_row, tuning_job
from ml_pipeline.requests.types import Document, Search, Tags, Templated, Trial, Tuned
from ml_pipeline.settings import Settings

# Trials listed in the XCom; a search may have 750.
LISTED = 50


class HyperparameterTuningOperator(FittingOperator[Tuned]):
    """Search the space of `model_code.hyperparameters`, judging trials on the validation split.

    The others: see `FittingOperator`.

    Args:
        tune_mode: A value of `TuneMode`.
        trials: Maximum number of trials; Grid makes one per combination of choices.
        parallel_trials: Concurrent trials.
        tune_strategy: A value of `TuneStrategy`.
        early_stopping: Let SageMaker stop trials that fall behind.
        target: Stop once the objective reaches this.
        patience_trials: Stop after this many trials without an improvement.
        stop_when_converged: Stop when a better trial is unlikely.
        warm_start: Start from the results of the last search of the same data set, strategy and architecture.
        max_runtime_seconds: Limit of the whole search, in seconds.
    """

    slug = "tune"
    template_fields = (
        *FittingOperator.template_fields,
        "tune_mode",
        *SEARCH,
        "warm_start",
        "max_runtime_seconds",
    )

    def __init__(
        self,
        *,
        trials: Templated,
        tune_mode: Templated = TuneMode.JOB.value,
        parallel_trials: Templated = 2,
        tune_strategy: Templated = TuneStrategy.BAYESIAN.value,
        early_stopping: Templated = False,
        target: Templated = None,
        patience_trials: Templated = None,
        stop_when_converged: Templated = False,
        warm_start: Templated = False,
        max_runtime_seconds: Templated = None,
        **kwargs: Unpack[FittingOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.tune_mode = tune_mode
        self.trials = trials
        self.parallel_trials = parallel_trials
        self.tune_strategy = tune_strategy
        self.early_stopping = early_stopping
        self.target = target
        self.patience_trials = patience_trials
        self.stop_when_converged = stop_when_converged
        self.warm_start = warm_start
        self.max_runtime_seconds = max_runtime_seconds

    @property
    def kind(self) -> JobKind:  # type: ignore[override]
        """A tuning job, or the training job that holds the whole search."""
        return JobKind.TUNING if TuneMode(self.tune_mode) is TuneMode.JOB else JobKind.TRAINING

    def request(self, settings: Settings) -> Request:
        """Return the tuning job, or the training job that runs `tune.py`."""
        recipe, strategy = Recipe(**self.recipe), TuneStrategy(self.tune_strategy)
        checkpoints = "jobs/checkpoints/"
        if self.kind is JobKind.TRAINING:
            values = packed.packed_hyperparameters(recipe, int(self.trials), strategy)
            job = self.job(settings, "tune.py", values, checkpoints, final=False)
            return partial(_packed_request, job=job)
        parents = self._parents() if self.warm_start else []
        trial = self.job(settings, "train.py", recipe.of_trials(), checkpoints, final=False)
        limit = self.max_runtime_seconds and int(self.max_runtime_seconds)
        asked = {name: getattr(self, name) for name in SEARCH}
        search = replace(search_of(asked, recipe, trial, parents), max_runtime_seconds=limit)
        return partial(_request, search=search)

    def longest_run(self) -> timedelta:
        """Return the limit of one trial times the trials that run one after another."""
        longest = super().longest_run()
        if self.kind is JobKind.TRAINING:
            return longest
        trials = trials_of(self.tune_strategy, self.trials, Recipe(**self.recipe))
        return longest * math.ceil(trials / int(self.parallel_trials))

    def identity(self, build: Request) -> Document:
        """Return the request without its parents: another run may end between two tries of this task."""
        request = super().identity(build)
        return {key: value for key, value in request.items() if key != "WarmStartConfig"}

    def tags(self) -> dict[str, str]:
        """Return the tags by which a later search finds this one for a warm start."""
        return {
            "dataset": self.dataset["name"],
            "strategy": self.recipe["strategy"],
            "architecture": self.recipe["architecture"],
        }

    def result(self, settings: Settings, description: Document) -> Tuned:
        """Return the best trials, and write all of them to S3: an XCom has to be small."""
        outcome = self._outcome(description)
        trials = outcome["trials"]
        trials_uri = settings.s3(f"jobs/{outcome['tuning_job_name']}/trials.json")
        objects.write_json(self.client("s3"), trials_uri, trials)
        return {
            **outcome,
            "trials": best_trials(trials, LISTED),
            "trials_uri": trials_uri,
            "trial_seconds": round(sum(trial["seconds"] or 0.0 for trial in trials), 1),
        }

    def _outcome(self, description: Document) -> Search:
        if self.kind is JobKind.TRAINING:
            archive = objects.read(self.client("s3"), description["ModelArtifacts"]["S3ModelArtifacts"])
            return packed.result(description["TrainingJobName"], packed.read_trials(archive))
        name = description["HyperParameterTuningJobName"]
        trials = self._trials(name)
        best = description.get("BestTrainingJob")
        if not best:
            reasons = {reason for trial in trials[:LISTED] if (reason := self._reason(trial))}
            raise JobFailed(
                f"tuning job {name} has no best trial out of {len(trials)}: "
                + ("; ".join(sorted(reasons)[:3]) or "no trial reported the objective")
            )
        metric = best["FinalHyperParameterTuningJobObjectiveMetric"]
        return {
            "tuning_job_name": name,
            "best_training_job": best["TrainingJobName"],
            "best_hyperparameters": best["TunedHyperParameters"],
            "objective": {"name": metric["MetricName"], "value": metric["Value"]},
            "trials": [trial_row(trial) for trial in trials],
        }

    def _parents(self) -> list[str]:
        found = self.client("sagemaker").list_hyper_parameter_tuning_jobs(
            StatusEquals="Completed", SortBy="CreationTime", SortOrder="Descending", MaxResults=50
        )["HyperParameterTuningJobSummaries"]
        for summary in found:
            arn = summary["HyperParameterTuningJobArn"]
            tags = {
                tag["Key"]: tag["Value"]
                for tag in self.client("sagemaker").list_tags(ResourceArn=arn)["Tags"]
            }
            if tags.items() >= self.tags().items():
                self.log.info("starting warm from %s", summary["HyperParameterTuningJobName"])
                return [summary["HyperParameterTuningJobName"]]
        self.log.info("no earlier search of %s to start warm from", self.dataset["name"])
        return []

    def _reason(self, trial: Document) -> str:
        """Return why a trial failed or was stopped. Its summary does not say what stopped it, only its description."""
        if trial["TrainingJobStatus"] != "Stopped":
            return str(trial.get("FailureReason", ""))
        found = jobs.describe(self.client("sagemaker"), JobKind.TRAINING, trial["TrainingJobName"])
        return jobs.reason(found) if found else ""

    def _trials(self, name: str) -> list[Document]:
        pages = (
            self.client("sagemaker")
            .get_paginator("list_training_jobs_for_hyper_parameter_tuning_job")
            .paginate(HyperParameterTuningJobName=name)
        )
        return [trial for page in pages for trial in page["TrainingJobSummaries"]]


def _request(name: str, tags: Tags, *, search: Tuning) -> Document:
    return tuning_job(name, search, tags)


def _packed_request(name: str, tags: Tags, *, job: Training) -> Document:
    return training_job(name, job, tags)


def best_trials(trials: Sequence[Trial], count: int) -> list[Trial]:
    """Return the `count` trials with the highest values, best first; those without a value come last."""
    return sorted(trials, key=lambda trial: (trial["value"] is None, -(trial["value"] or 0.0)))[:count]
