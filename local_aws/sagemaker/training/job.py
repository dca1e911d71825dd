"""A running training job: from capacity and channels to processes, metrics and artifacts."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

from local_aws.context import Context
from local_aws.execution.images import Image
from local_aws.execution.supervisor import CANNOT_MOUNT
from local_aws.sagemaker.jobs import artifacts
from local_aws.sagemaker.jobs.checkpoints import CheckpointSync
from local_aws.sagemaker.jobs.hosts import (
    STOP_GRACE_SECONDS,
    Ending,
    HostCommand,
    Hosts,
    error_message,
    host_names,
)
from local_aws.sagemaker.jobs.job import INTERNAL_ERROR, Job, JobEnded, JobFailed, JobStopped, Shutdown, cut
from local_aws.sagemaker.jobs.machines import instance_groups
from local_aws.sagemaker.jobs.metrics import MetricScraper, scrape_log
from local_aws.sagemaker.s3_data import DataError
from local_aws.sagemaker.training import warm_pools
from local_aws.sagemaker.training.setup import LOG_GROUP, TrainingSetup, checkpoint_tree
from local_aws.sagemaker.training.transitions import transition
from local_aws.sagemaker.trees import Tree
from local_aws.state.resources import Document, Resource

logger = logging.getLogger(__name__)

KIND = "training-job"
INTERRUPTION_GRACE_SECONDS = 5.0
"""Seconds in which an interrupted spot job may finish writing; AWS gives two minutes of notice."""
TEXT_OF_COMMAND = 160
WAITED_TOO_LONG = ("MaxWaitTimeExceeded", "Training job wait time exceeded MaxWaitTimeInSeconds provided")
RAN_TOO_LONG = ("MaxRuntimeExceeded", "Training job runtime exceeded MaxRuntimeInSeconds provided")


class TrainingJob(Job):
    """A training job. `parallel` is the number of trials of its tuning job that share the cores."""

    kind = KIND

    def __init__(self, context: Context, resource: Resource, image: Image, parallel: int = 1) -> None:
        super().__init__(context, resource)
        self._image = image
        self._parallel = parallel
        self._interrupted = False
        self._deadline = math.inf
        self._seconds_before = 0.0  # on instances, in attempts before this one
        self._attempt_started: float | None = None
        self.scraper = MetricScraper(self.request["AlgorithmSpecification"].get("MetricDefinitions", []))
        self._s3 = context.client("s3", self.region, self.request["RoleArn"])
        self._hosts = Hosts(context, self.kind, f"{self.region}/{self.name}", self.scraper.feed)
        self._commands: dict[str, HostCommand] = {}
        self._groups = instance_groups(self.request["ResourceConfig"])
        self._names = host_names(sum(count for _, _, count in self._groups))

    # --- life ---

    def execute(self) -> None:
        """Run to the end, over interruptions of managed spot and retries."""
        self._step("Starting", "Starting the training job")
        wait_until = self._wait_limit()
        while True:
            try:
                self._run_on_instances(wait_until)
            except JobFailed as failed:
                if not self._may_retry(str(failed)):
                    raise
                continue
            if not self._interrupted:
                return
            self._interrupted = False
            self._step("Interrupted", "The instances were reclaimed; waiting for managed spot capacity")
            self._step("Starting", "Starting the training job again after an interruption")

    def _may_retry(self, reason: str) -> bool:
        """Return True when RetryStrategy allows another attempt: only after SageMaker's own errors, as on AWS."""
        retry = reason.startswith(INTERNAL_ERROR) and note_retry(self.context, self.region, self.name)
        if retry:
            self._step("Restarting", f"Restarting the training job: {reason}")
        return retry

    def interrupt(self) -> bool:
        """Reclaim the instances, as AWS may with managed spot; return False when the job holds none."""
        if not self.request.get("EnableManagedSpotTraining") or not self._commands:
            return False
        self._interrupted = True
        return True

    def mark_failed(self, reason: str) -> None:
        """Record the end as Failed, with the metrics seen so far."""
        self._end("Failed", "Failed", f"Training job failed: {reason}", FailureReason=reason)

    def mark_stopped(self, reason: str) -> None:
        """Record the end as Stopped before anything was uploaded."""
        members = {"FailureReason": reason} if reason else {}
        self._end("Stopped", "Stopped", reason or "Training job stopped", **members)

    def _run_on_instances(self, wait_until: float) -> None:
        cores = [
            self.context.capacity.share(kind, sum(c for *_, c in self._groups), self._parallel)
            for _, kind, _ in self._groups
        ]
        total = sum(share * count for share, (_, _, count) in zip(cores, self._groups, strict=True))
        if self.context.capacity.free < total:
            self._step("Pending", "Waiting for capacity: other jobs hold the cores of this machine")
        limits = [
            wait_until - time.time(),
            float(self.request["StoppingCondition"].get("MaxPendingTimeInSeconds", math.inf)),
        ]
        with self._lease(total, min(limits), wait_until):
            started = self._attempt_started = time.time()
            self._hosts = Hosts(self.context, self.kind, f"{self.region}/{self.name}", self.scraper.feed)
            self.context.store.update(
                self.kind,
                self.region,
                self.name,
                lambda document: document.setdefault("TrainingStartTime", started),
            )
            try:
                self._prepare(dict(zip((group for group, *_ in self._groups), cores, strict=True)))
                self._train(wait_until)
            except DataError as error:
                raise JobFailed(f"ClientError: {error}") from error
            finally:
                self._hosts.kill()
                self._commands = {}
                self._seconds_before += time.time() - started
                self._attempt_started = None
                self.remove_folder()

    def _lease(self, cores: int, timeout: float, wait_until: float) -> Any:
        try:
            return self.take_cores(cores, None if math.isinf(timeout) else max(0.0, timeout))
        except JobStopped:
            if time.time() >= wait_until and not self.stop_requested.is_set():
                self._end("Stopped", *WAITED_TOO_LONG)
                raise JobEnded from None
            raise

    # --- before training ---

    def _prepare(self, cores: dict[str, int]) -> None:
        self._step("Downloading", "Downloading input data")
        setup = TrainingSetup(self.context, self.region, self.request, self._image, self._s3, self.folder)
        for place in setup.places(self._groups, self._names, cores):
            self._commands[place.host] = setup.prepare(place, self.check_running)

    # --- training and after ---

    def _train(self, wait_until: float) -> None:
        runtime = self.request["StoppingCondition"]["MaxRuntimeInSeconds"]
        self._deadline = min(time.time() + runtime - self._seconds_before, wait_until)
        self._step("Training", "Training image download completed. Training in progress.")
        self.check_running()
        try:
            self._hosts.start(list(self._commands.values()))
        except OSError as error:
            raise JobFailed(f"{INTERNAL_ERROR}: the process could not be started: {error}") from error
        syncs = self._checkpoint_syncs()
        try:
            ending = self._hosts.wait(self._give_up)
            self._interrupted = self._interrupted and ending is None
            early = self._terminate(wait_until) if ending is None else None
        finally:
            # Before the end is recorded: a client that sees the end may rely on the checkpoints.
            for sync in syncs:
                sync.stop()
        if ending is None:
            if early is not None:
                self._upload()
                self._end("Stopped", *early)
        elif ending.status == CANNOT_MOUNT:
            raise JobFailed(f"{INTERNAL_ERROR}: {error_message(ending.tail)}")
        elif ending.status != 0:
            self._fail(ending)
        else:
            self._upload()
            self._end("Completed", "Completed", "Training job completed")

    def _give_up(self) -> bool:
        return self.stop_requested.is_set() or self._interrupted or time.time() >= self._deadline

    def _terminate(self, wait_until: float) -> tuple[str, str] | None:
        """End the processes that still run.

        Returns:
            The secondary status and message of the job's end; None after an interruption.
        """
        if self._interrupted and not self.stop_requested.is_set():
            self._hosts.terminate(INTERRUPTION_GRACE_SECONDS)
            return None
        self._interrupted = False
        if self.stop_requested.is_set():
            secondary, message = "Stopped", "Training job stopped"
            self._step("Stopping", "Stopping the training job")
        else:
            secondary, message = WAITED_TOO_LONG if time.time() >= wait_until else RAN_TOO_LONG
        self._hosts.terminate(STOP_GRACE_SECONDS)
        return secondary, message

    def _fail(self, ending: Ending) -> None:
        """Record the failure: the text of output/failure, else the tail of the log."""
        code = ending.status if ending.status > 0 else 128 - ending.status
        self._upload_output()
        failure = Tree.at(self.folder / ending.host, "output").read("failure", 4096)
        if failure:
            text = failure.decode("utf-8", "replace")
            raise JobFailed(cut(f"AlgorithmError: {text}, exit code: {code}"))
        command = " ".join(self._commands[ending.host].argv)[:TEXT_OF_COMMAND]
        error = error_message(ending.tail)
        text = f'AlgorithmError: ExecuteUserScriptError:\nExitCode {code}\nErrorMessage "{cut(error, 700)}"\n'
        raise JobFailed(cut(f'{text}Command "{command}", exit code: {code}'))

    def _upload(self) -> None:
        self._step("Uploading", "Uploading generated training model")
        packed = self.folder / "model.tar.gz"
        trees = [Tree.at(self.folder / name, "model") for name in self._names]
        uri = artifacts.upload(self._s3, self.request["OutputDataConfig"], self.name, trees, packed)
        self._upload_output()
        self.update({"ModelArtifacts": {"S3ModelArtifacts": uri}})

    def _upload_output(self) -> None:
        """Upload output.tar.gz of /opt/ml/output/data when a host left files there."""
        trees = [Tree.at(self.folder / name, "output/data") for name in self._names]
        if not all(tree.is_empty() for tree in trees):
            packed = self.folder / "output.tar.gz"
            artifacts.upload(self._s3, self.request["OutputDataConfig"], self.name, trees, packed)

    def _checkpoint_syncs(self) -> list[CheckpointSync]:
        checkpoints = self.request.get("CheckpointConfig")
        if not checkpoints:
            return []
        trees = [checkpoint_tree(self.folder / host, checkpoints) for host in self._names]
        syncs = [CheckpointSync(self._s3, checkpoints["S3Uri"], tree) for tree in trees]
        for sync in syncs:
            sync.start()
        return syncs

    # --- records ---

    def _wait_limit(self) -> float:
        """Return the end of MaxWaitTimeInSeconds in epoch seconds; it covers waiting and all attempts."""
        wait = self.request["StoppingCondition"].get("MaxWaitTimeInSeconds")
        return math.inf if wait is None else float(self.request["CreationTime"]) + float(wait)

    def _step(self, secondary: str, message: str) -> None:
        self._check_if_shut_down()

        def change(document: Document) -> None:
            # A stop that was acknowledged meanwhile stays visible.
            if document["TrainingJobStatus"] == "Stopping" and secondary not in ("Stopping", "Uploading"):
                return
            transition(document, secondary, message)

        self.context.store.update(self.kind, self.region, self.name, change)

    def _check_if_shut_down(self) -> None:
        """Raise Shutdown when local_aws stops."""
        if self.context.stopping.is_set():
            raise Shutdown

    def _end(self, status: str, secondary: str, message: str, **members: object) -> None:
        def change(document: Document) -> None:
            now = time.time()
            transition(document, secondary, message, ended=True)
            document["TrainingJobStatus"] = status
            document["FinalMetricDataList"] = metrics = self.scraper.final()
            note_objective(document, metrics)
            document["TrainingEndTime"] = now
            if "TrainingStartTime" in document:
                document["TrainingTimeInSeconds"] = math.ceil(now - document["TrainingStartTime"])
                attempt = now - self._attempt_started if self._attempt_started else 0.0
                document["BillableTimeInSeconds"] = math.ceil(self._seconds_before + attempt)
            warm_pools.end(document)
            document.update(members)

        self.end(change)


def note_retry(context: Context, region: str, name: str) -> bool:
    """Count one more retry of a job; return False when its RetryStrategy allows none."""
    allowed = False

    def change(document: Document) -> None:
        nonlocal allowed
        used = document.get("_Retries", 0)
        allowed = used < document.get("RetryStrategy", {}).get("MaximumRetryAttempts", 0)
        document["_Retries"] = used + allowed

    context.store.update(KIND, region, name, change)
    return allowed


def reported(context: Context, region: str, document: Document) -> MetricScraper:
    """Collect the metrics from a training job's log."""
    definitions = document["AlgorithmSpecification"].get("MetricDefinitions", [])
    return scrape_log(context.logs, region, LOG_GROUP, document["TrainingJobName"], definitions)


def note_end(
    context: Context, region: str, document: Document, status: str, message: str = "Training job stopped"
) -> None:
    """Record in the document the end of a job without a thread."""
    transition(document, status, message, ended=True)
    document["TrainingJobStatus"] = status
    document["TrainingEndTime"] = time.time()
    document["FinalMetricDataList"] = metrics = reported(context, region, document).final()
    note_objective(document, metrics)


def note_objective(document: Document, metrics: list[Document]) -> None:
    """Record the objective of a tuning job's trial, or its absence."""
    objective = document.get("_Objective")
    if objective is None:
        return
    value = next((m["Value"] for m in metrics if m["MetricName"] == objective["MetricName"]), None)
    if value is None or document["TrainingJobStatus"] == "Failed":
        document["ObjectiveStatus"] = "Failed"
        return
    document["ObjectiveStatus"] = "Succeeded"
    document["FinalHyperParameterTuningJobObjectiveMetric"] = {**objective, "Value": value}
