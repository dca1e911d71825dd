"""A running tuning job: draws points, starts them as training jobs, watches and judges them."""

from __future__ import annotations

import itertools
import logging
import time
import uuid
from collections import deque
from collections.abc import Sequence

from local_aws.context import Context
from local_aws.errors import AwsError
from local_aws.sagemaker.jobs.job import INTERNAL_ERROR, Job, JobFailed, Shutdown, ending
from local_aws.sagemaker.training import operations as training
from local_aws.sagemaker.training.job import TrainingJob
from local_aws.sagemaker.tuning import pruning, trials
from local_aws.sagemaker.tuning.definitions import OBJECTIVE, definitions, seed_of, teach, trial_request
from local_aws.sagemaker.tuning.trials import RETRY_OF, Draw, Trial
from local_aws.state.resources import Document, Missing, Resource

logger = logging.getLogger(__name__)

KIND = "hyper-parameter-tuning-job"
MOST_FAILURES = 5
"""SageMaker gives up when this many trials failed and none succeeded."""
MOST_ATTEMPTS = 3
"""Attempts at a point whose trial is lost to an error of local_aws itself."""
WATCH_SECONDS = 0.1


class TuningJob(Job):
    """A tuning job."""

    kind = KIND

    def __init__(
        self, context: Context, resource: Resource, warm: Sequence[Resource], known: Sequence[Resource] = ()
    ) -> None:
        """Prepare a search.

        Args:
            context: The running local_aws.
            resource: The tuning job's record.
            warm: Finished training jobs of the parent tuning jobs.
            known: Training jobs that this one started before local_aws restarted.
        """
        super().__init__(context, resource)
        self._config = self.request["HyperParameterTuningJobConfig"]
        self._limits = self._config["ResourceLimits"]
        self._tags = context.store.tags(resource.arn)
        self._definitions = definitions(self.request, seed_of(self.request))
        for definition in self._definitions:
            teach(definition, warm)
        self._turn = itertools.cycle(self._definitions)
        self._running = trials.recall(context, self.region, self._definitions, known)
        self._finished: list[Trial] = []
        self._lost: deque[Draw] = deque()
        self._objectives: list[float] = []
        self._launched = len(known)
        self._drawn = sum(RETRY_OF not in resource.document for resource in known)
        for _ in range(self._drawn % len(self._definitions)):
            next(self._turn)
        self._succeeded = self._failed = 0
        self._enough = False
        self._deadline = resource.created + self._limits.get("MaxRuntimeInSeconds", float("inf"))

    def execute(self) -> None:
        """Run until every trial has ended."""
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
        self.mark("Stopped" if stopped else "Completed")

    # --- trials ---

    def _launch(self) -> None:
        while len(self._running) < self._limits["MaxParallelTrainingJobs"] and not self._nothing_left():
            draw = self._next()
            if draw is None:
                continue
            try:
                self._running.append(self._start(draw))
            except AwsError as error:
                if error.code == "ResourceLimitExceeded" and self._running:
                    self._lost.appendleft(draw)
                    return
                raise

    def _next(self) -> Draw | None:
        """Return the point of a lost trial, else a new one; None when the definition in turn has none left."""
        if self._lost:
            return self._lost.popleft()
        definition = next(self._turn)
        asked = None if definition.exhausted else definition.searcher.ask()
        if asked is None:
            definition.exhausted = True
            return None
        self._drawn += 1
        return Draw(definition, *asked)

    def _nothing_left(self) -> bool:
        most = self._limits.get("MaxNumberOfTrainingJobs")
        enough = (most is not None and self._drawn >= most) or all(d.exhausted for d in self._definitions)
        return enough and not self._lost

    def _start(self, draw: Draw) -> Trial:
        definition = draw.definition
        name = f"{self.name}-{self._launched + 1:03d}-{uuid.uuid4().hex[:8]}"
        members = {
            "TuningJobArn": self.arn,
            "TuningJobName": self.name,
            **({"TrainingJobDefinitionName": definition.name} if definition.name else {}),
            **({RETRY_OF: draw.retry_of} if draw.retry_of else {}),
            "TunedHyperParameters": dict(draw.point),
            "ObjectiveStatus": "Pending",
            "_Objective": {
                "MetricName": definition.metric,
                "Type": "Maximize" if definition.maximize else "Minimize",
            },
        }
        training.create(
            self.context,
            self.region,
            trial_request(definition, name, draw.point),
            self._tags,
            parent=self.name,
            parallel=self._limits["MaxParallelTrainingJobs"],
            members=members,
        )
        self._launched += 1
        return trials.watch(self.context, self.region, name, draw)

    def _collect(self) -> None:
        """Report ended trials to the searchers."""
        for trial in [trial for trial in self._running if trial.finished.is_set()]:
            self._running.remove(trial)
            document = self._record(trial)
            status = document["TrainingJobStatus"]
            if (
                status == "Failed"
                and document.get("FailureReason", "").startswith(INTERNAL_ERROR)
                and trial.draw.attempt < MOST_ATTEMPTS
            ):
                self._lost.append(trial.draw.again(trial.name))
                continue
            trial.look()
            self._finished.append(trial)
            value = document.get(OBJECTIVE, {}).get("Value")
            trial.definition.searcher.tell(trial.draw.number, value)
            if value is not None:
                self._succeeded += 1
                self._objectives.append(value)
            elif status == "Failed":
                self._failed += 1
            self._check_completion()

    def _record(self, trial: Trial) -> Document:
        try:
            return self.context.store.get(TrainingJob.kind, self.region, trial.name).document
        except Missing:  # a client deleted it as soon as it had ended
            return {"TrainingJobStatus": "Stopped"}

    def _judge(self) -> None:
        """Stop unpromising trials."""
        hyperband = self._config["Strategy"] == "Hyperband"
        if not hyperband and self._config.get("TrainingJobEarlyStoppingType", "Off") != "Auto":
            return
        for trial in self._running:
            trial.look()
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
        """Check the completion criteria, and fail the job when no trial succeeds."""
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
            if not trial.stop_asked:
                trial.stop_asked = True
                training.stop(self.context, self.region, trial.name)

    def _drain(self) -> None:
        """Stop the trials and wait for them."""
        self._stop_trials()
        for trial in self._running:
            while not trial.finished.wait(WATCH_SECONDS):
                if self.context.stopping.is_set():
                    raise Shutdown

    def _pause(self) -> None:
        """Wait until a trial ends, at most WATCH_SECONDS."""
        if self._running:
            self._running[0].finished.wait(WATCH_SECONDS)
        else:
            self.context.stopping.wait(WATCH_SECONDS)

    def mark(self, status: str, **members: object) -> None:
        """Record the end, with the trials' results."""
        if not self._succeeded and status == "Completed":
            status = "Failed"
            members["FailureReason"] = (
                "All training jobs failed. For additional details, please take a look at the training job failures by "
                "listing training jobs for the hyperparameter tuning job."
            )

        def change(document: Document) -> None:
            if self._objectives:
                details = document.setdefault("TuningJobCompletionDetails", {})
                details["NumberOfTrainingJobsObjectiveNotImproving"] = pruning.not_improving(
                    self._objectives, self._definitions[0].maximize
                )
            document.update(ending(self.kind, status, **members))

        self.end(change)


def _note_convergence(document: Document) -> None:
    document.setdefault("TuningJobCompletionDetails", {}).setdefault("ConvergenceDetectedTime", time.time())
