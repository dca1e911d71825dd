"""One tuning job while it runs: trials asked of a searcher, started as training jobs, watched, judged."""

from __future__ import annotations

import hashlib
import itertools
import logging
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from local_aws.context import Context
from local_aws.errors import AwsError
from local_aws.sagemaker import pruning, training
from local_aws.sagemaker.job import Job, JobFailed, Shutdown
from local_aws.sagemaker.script_mode import OBJECTIVE_METRIC
from local_aws.sagemaker.search_space import read_ranges
from local_aws.sagemaker.searchers import Searcher, make_searcher
from local_aws.sagemaker.training_job import TrainingJob
from local_aws.store import Document, Resource

logger = logging.getLogger(__name__)

KIND = "hyper-parameter-tuning-job"
OBJECTIVE = "FinalHyperParameterTuningJobObjectiveMetric"
MOST_FAILURES = 5
"""SageMaker gives up when this many trials failed and none succeeded."""
WATCH_SECONDS = 0.1


@dataclass
class Definition:
    """One training job definition with its own search space and objective."""

    name: str
    document: Document
    searcher: Searcher
    metric: str
    maximize: bool
    exhausted: bool = False


@dataclass
class Trial:
    """A training job of this tuning job. `series` are the objective's values so far."""

    name: str
    number: int
    definition: Definition
    job: TrainingJob
    series: list[float] = field(default_factory=list)
    rungs_passed: int = 0
    stopped_early: bool = False


class TuningJob(Job):
    """A tuning job."""

    kind = KIND

    def __init__(self, context: Context, resource: Resource, warm: list[Resource]) -> None:
        """`warm` are the finished training jobs of the parent tuning jobs."""
        super().__init__(context, resource)
        self._config = self.request["HyperParameterTuningJobConfig"]
        self._limits = self._config["ResourceLimits"]
        self._tags = context.store.tags(resource.arn)
        self._definitions = definitions(self.request, seed_of(self.request))
        for definition in self._definitions:
            _teach(definition, warm)
        self._turn = itertools.cycle(self._definitions)
        self._running: list[Trial] = []
        self._finished: list[Trial] = []
        self._objectives: list[float] = []
        self._started = self._succeeded = self._failed = 0
        self._enough = False
        self._deadline = time.time() + self._limits.get("MaxRuntimeInSeconds", float("inf"))

    def execute(self) -> None:
        """Until every trial has ended."""
        try:
            while True:
                self._collect()
                self._judge()
                ending = self.should_end() or self._enough or time.time() >= self._deadline
                if ending:
                    self._stop_trials()
                else:
                    self._launch()
                if not self._running and (ending or self._nothing_left()):
                    break
                self._pause()
        except AwsError as error:
            self._drain()
            raise JobFailed(f"{error.code}: {error.message}") from error
        except Exception:
            self._stop_trials()
            raise
        if self.context.stopping.is_set():
            raise Shutdown
        stopped = self.stop_requested.is_set() or (time.time() >= self._deadline and not self._enough)
        self._end("Stopped" if stopped else "Completed")

    def mark_failed(self, reason: str) -> None:
        """Failed, with what the trials found."""
        self._end("Failed", FailureReason=reason)

    def mark_stopped(self, reason: str) -> None:
        """Stopped."""
        self._end("Stopped")

    # --- trials ---

    def _launch(self) -> None:
        while len(self._running) < self._limits["MaxParallelTrainingJobs"] and not self._nothing_left():
            definition = next(self._turn)
            if definition.exhausted:
                continue
            asked = definition.searcher.ask()
            if asked is None:
                definition.exhausted = True
                continue
            number, point = asked
            try:
                self._running.append(self._start(definition, number, point))
            except AwsError as error:
                definition.searcher.tell(number, None)
                if error.code == "ResourceLimitExceeded" and self._running:
                    return
                raise
            self._started += 1

    def _nothing_left(self) -> bool:
        most = self._limits.get("MaxNumberOfTrainingJobs")
        return (most is not None and self._started >= most) or all(d.exhausted for d in self._definitions)

    def _start(self, definition: Definition, number: int, point: Mapping[str, str]) -> Trial:
        name = f"{self.name}-{self._started + 1:03d}-{uuid.uuid4().hex[:8]}"
        members = {
            "TuningJobArn": self.arn,
            "TuningJobName": self.name,
            **({"TrainingJobDefinitionName": definition.name} if definition.name else {}),
            "TunedHyperParameters": dict(point),
            "ObjectiveStatus": "Pending",
            "_Objective": {
                "MetricName": definition.metric,
                "Type": "Maximize" if definition.maximize else "Minimize",
            },
        }
        training.create(
            self.context,
            self.region,
            trial_request(definition, name, point),
            self._tags,
            parent=self.name,
            parallel=self._limits["MaxParallelTrainingJobs"],
            members=members,
        )
        job = training.JOBS.get(TrainingJob.kind, self.region, name)
        if not isinstance(job, TrainingJob):
            # It ended before we could look: its record has all that is needed.
            resource = self.context.store.get(TrainingJob.kind, self.region, name)
            image = training.find_image(self.context, resource.document["AlgorithmSpecification"])
            job = TrainingJob(self.context, resource, image)
            job.finished.set()
        return Trial(name, number, definition, job)

    def _collect(self) -> None:
        """Tell the searchers what has ended."""
        for trial in [trial for trial in self._running if trial.job.finished.is_set()]:
            self._running.remove(trial)
            self._finished.append(trial)
            trial.series = [value for _, value in trial.job.scraper.series(trial.definition.metric)]
            document = self.context.store.get(TrainingJob.kind, self.region, trial.name).document
            value = document.get(OBJECTIVE, {}).get("Value")
            trial.definition.searcher.tell(trial.number, value)
            if value is not None:
                self._succeeded += 1
                self._objectives.append(value)
            elif document["TrainingJobStatus"] == "Failed":
                self._failed += 1
            self._check_completion()

    def _judge(self) -> None:
        """Stop trials that are not worth going on with."""
        hyperband = self._config["Strategy"] == "Hyperband"
        if not hyperband and self._config.get("TrainingJobEarlyStoppingType", "Off") != "Auto":
            return
        for trial in self._running:
            trial.series = [value for _, value in trial.job.scraper.series(trial.definition.metric)]
        for trial in self._running:
            if not trial.stopped_early and (self._hyperband(trial) if hyperband else self._median(trial)):
                trial.stopped_early = True
                logger.info("tuning job %s stops trial %s early", self.name, trial.name)
                training.stop(self.context, self.region, trial.name)

    def _median(self, trial: Trial) -> bool:
        others = [
            t.series for t in self._finished if t.definition is trial.definition and not t.stopped_early
        ]
        return pruning.median_rule_stops(trial.series, others, trial.definition.maximize)

    def _hyperband(self, trial: Trial) -> bool:
        resources = self._config.get("StrategyConfig", {}).get("HyperbandStrategyConfig", {})
        levels = pruning.rungs(resources.get("MinResource", 1), resources.get("MaxResource"))
        seen = {
            t.name: t.series for t in (*self._finished, *self._running) if t.definition is trial.definition
        }
        while trial.rungs_passed < len(levels) and len(trial.series) >= levels[trial.rungs_passed]:
            if pruning.hyperband_stops(
                trial.name, levels[trial.rungs_passed], seen, trial.definition.maximize
            ):
                return True
            trial.rungs_passed += 1
        return False

    def _check_completion(self) -> None:
        """Whether the criteria say that this is enough, or the failures that it is hopeless."""
        if self._failed >= MOST_FAILURES and not self._succeeded:
            self._drain()
            raise JobFailed(
                f"No training job succeeded after {self._failed} attempts. For additional details, please take a look "
                "at the training job failures by listing training jobs for the hyperparameter tuning job."
            )
        criteria = self._config.get("TuningJobCompletionCriteria", {})
        if not self._objectives or not criteria:
            return
        maximize = self._definitions[0].maximize
        target = criteria.get("TargetObjectiveMetricValue")
        best = pruning.best_of(self._objectives, maximize)
        if target is not None and not pruning.better(target, best, maximize):
            self._enough = True
        patience = criteria.get("BestObjectiveNotImproving", {}).get("MaxNumberOfTrainingJobsNotImproving")
        if patience is not None and pruning.not_improving(self._objectives, maximize) >= patience:
            self._enough = True
        on_convergence = criteria.get("ConvergenceDetected", {}).get("CompleteOnConvergence") == "Enabled"
        if pruning.converged(self._objectives, maximize):
            self.context.store.update(self.kind, self.region, self.name, _note_convergence)
            self._enough = self._enough or on_convergence

    def _stop_trials(self) -> None:
        for trial in self._running:
            if not trial.job.stop_requested.is_set():
                training.stop(self.context, self.region, trial.name)

    def _drain(self) -> None:
        """Stop the trials and wait for their end."""
        self._stop_trials()
        for trial in self._running:
            while not trial.job.finished.wait(WATCH_SECONDS):
                if self.context.stopping.is_set():
                    raise Shutdown

    def _pause(self) -> None:
        """Until a trial ends, at most WATCH_SECONDS."""
        if self._running:
            self._running[0].job.finished.wait(WATCH_SECONDS)
        else:
            self.context.stopping.wait(WATCH_SECONDS)

    def _end(self, status: str, **members: object) -> None:
        if not self._succeeded and status == "Completed":
            status = "Failed"
            members["FailureReason"] = (
                "All training jobs failed. For additional details, please take a look at the training job failures by "
                "listing training jobs for the hyperparameter tuning job."
            )

        def change(document: Document) -> None:
            document["HyperParameterTuningJobStatus"] = status
            document["HyperParameterTuningEndTime"] = time.time()
            if self._objectives:
                details = document.setdefault("TuningJobCompletionDetails", {})
                details["NumberOfTrainingJobsObjectiveNotImproving"] = pruning.not_improving(
                    self._objectives, self._definitions[0].maximize
                )
            document.update(members)

        self.context.store.update(self.kind, self.region, self.name, change)


def definitions(request: Document, seed: int) -> list[Definition]:
    """The definitions of a request, each with a searcher of its own. Raises ValidationException."""
    config = request["HyperParameterTuningJobConfig"]
    found = []
    for index, document in enumerate(
        request.get("TrainingJobDefinitions") or [request["TrainingJobDefinition"]]
    ):
        ranges = ranges_of(document, config)
        objective = document.get("TuningObjective", config.get("HyperParameterTuningJobObjective"))
        maximize = objective["Type"] == "Maximize"
        found.append(
            Definition(
                name=document.get("DefinitionName", ""),
                document=document,
                searcher=make_searcher(config["Strategy"], read_ranges(ranges), seed + index, maximize),
                metric=objective["MetricName"],
                maximize=maximize,
            )
        )
    return found


def ranges_of(document: Document, config: Document) -> Document:
    """The parameter ranges of a definition: its own, or those of the whole job."""
    ranges: Document = document.get("HyperParameterRanges") or config.get("ParameterRanges") or {}
    return ranges


def seed_of(request: Document) -> int:
    """RandomSeed, or a number drawn from the job's name and time, so that two jobs search differently."""
    seed = request["HyperParameterTuningJobConfig"].get("RandomSeed")
    if seed is not None:
        return int(seed)
    text = f"{request['HyperParameterTuningJobName']}{request.get('CreationTime')}"
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)


_PASSED_ON = (
    "AlgorithmSpecification",
    "RoleArn",
    "InputDataConfig",
    "VpcConfig",
    "OutputDataConfig",
    "StoppingCondition",
    "EnableNetworkIsolation",
    "EnableInterContainerTrafficEncryption",
    "EnableManagedSpotTraining",
    "RetryStrategy",
    "Environment",
)


def trial_request(definition: Definition, name: str, point: Mapping[str, str]) -> Document:
    """The CreateTrainingJob request of one trial."""
    document = definition.document
    request: Document = {member: document[member] for member in _PASSED_ON if member in document}
    request["TrainingJobName"] = name
    request["StoppingCondition"] = dict(document["StoppingCondition"])
    request["HyperParameters"] = {
        **document.get("StaticHyperParameters", {}),
        **point,
        OBJECTIVE_METRIC: definition.metric,
    }
    request["ResourceConfig"] = resources(document)
    if "CheckpointConfig" in document:
        checkpoints = document["CheckpointConfig"]
        request["CheckpointConfig"] = {**checkpoints, "S3Uri": f"{checkpoints['S3Uri'].rstrip('/')}/{name}"}
    return request


def resources(document: Document) -> Document:
    """ResourceConfig of a definition; of HyperParameterTuningResourceConfig's instance list the first is
    taken.
    """
    if "ResourceConfig" in document:
        return dict(document["ResourceConfig"])
    tuning = document["HyperParameterTuningResourceConfig"]
    first = tuning["InstanceConfigs"][0] if tuning.get("InstanceConfigs") else tuning
    return {
        "InstanceType": first["InstanceType"],
        "InstanceCount": first["InstanceCount"],
        "VolumeSizeInGB": first.get("VolumeSizeInGB", tuning.get("VolumeSizeInGB", 30)),
    }


def _teach(definition: Definition, warm: list[Resource]) -> None:
    for resource in warm:
        value = resource.document.get(OBJECTIVE, {}).get("Value")
        if value is not None:
            definition.searcher.learn(resource.document["TunedHyperParameters"], value)


def _note_convergence(document: Document) -> None:
    document.setdefault("TuningJobCompletionDetails", {}).setdefault("ConvergenceDetectedTime", time.time())
