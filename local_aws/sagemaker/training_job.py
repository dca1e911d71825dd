"""One training job while it runs: from capacity and channels to processes, metrics and artefacts."""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from pathlib import Path
from typing import Any

from local_aws.context import Context
from local_aws.images import Image
from local_aws.sagemaker import archive, artefacts, requirements, s3_data, script_mode, warm_pools
from local_aws.sagemaker.checkpoints import CheckpointSync
from local_aws.sagemaker.hosts import (
    STOP_GRACE_SECONDS,
    Ending,
    HostCommand,
    Hosts,
    error_message,
    host_names,
    log_stream,
)
from local_aws.sagemaker.job import INTERNAL_ERROR, Job, JobEnded, JobFailed, JobStopped, Shutdown, cut
from local_aws.sagemaker.machines import free_port, instance_groups, machine_environment
from local_aws.sagemaker.metrics import MetricScraper
from local_aws.sagemaker.s3_data import DataError
from local_aws.sagemaker.script_mode import HostPlace
from local_aws.sagemaker.transitions import transition
from local_aws.store import Document, Resource
from local_aws.supervisor import CANNOT_MOUNT

logger = logging.getLogger(__name__)

KIND = "training-job"
LOG_GROUP = "/aws/sagemaker/TrainingJobs"
OPT_ML_FOLDERS = (
    "input/config",
    "input/data",
    "model",
    "output/data",
    "code",
    "checkpoints",
    "tmp",
    "packages",
)
INTERRUPTION_GRACE_SECONDS = 5.0
"""How long an interrupted spot job may finish what it writes; AWS gives two minutes of notice."""
TEXT_OF_COMMAND = 160


class TrainingJob(Job):
    """A training job. `parallel` is how many of its kind its tuning job runs at once, among whom cores are
    shared.
    """

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
        self._hyperparameters: dict[str, str] = self.request.get("HyperParameters", {})
        self._s3 = context.client("s3", self.region)
        self._hosts = Hosts(context, self.kind, f"{self.region}/{self.name}", self.scraper.feed)
        self._commands: dict[str, HostCommand] = {}
        self._groups = instance_groups(self.request["ResourceConfig"])
        self._names = host_names(sum(count for _, _, count in self._groups))

    # --- life ---

    def execute(self) -> None:
        """The whole life, interruptions of managed spot included."""
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
        """Whether RetryStrategy allows another attempt: only after errors of SageMaker's own, as on AWS."""
        retry = (
            note_retry(self.context, self.region, self.name) if reason.startswith(INTERNAL_ERROR) else False
        )
        if retry:
            self._step("Restarting", f"Restarting the training job: {reason}")
        return retry

    def interrupt(self) -> bool:
        """Take the instances away, as AWS may with managed spot; False when the job is not training on
        any.
        """
        if not self.request.get("EnableManagedSpotTraining") or not self._commands:
            return False
        self._interrupted = True
        return True

    def mark_failed(self, reason: str) -> None:
        """Failed, with the metrics seen so far."""
        self._end("Failed", "Failed", f"Training job failed: {reason}", FailureReason=reason)

    def mark_stopped(self, reason: str) -> None:
        """Stopped before anything could be uploaded."""
        self._end(
            "Stopped",
            "Stopped",
            reason or "Training job stopped",
            **({"FailureReason": reason} if reason else {}),
        )

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
                if not self.context.stopping.is_set():
                    shutil.rmtree(self.folder, ignore_errors=True)

    def _lease(self, cores: int, timeout: float, wait_until: float) -> Any:
        try:
            return self.take_cores(cores, None if math.isinf(timeout) else max(0.0, timeout))
        except JobStopped:
            if time.time() >= wait_until and not self.stop_requested.is_set():
                self._end(
                    "Stopped",
                    "MaxWaitTimeExceeded",
                    "Training job wait time exceeded MaxWaitTimeInSeconds provided",
                )
                raise JobEnded from None
            raise

    # --- before training ---

    def _prepare(self, cores: dict[str, int]) -> None:
        self._step("Downloading", "Downloading input data")
        default_mode = self.request["AlgorithmSpecification"]["TrainingInputMode"]
        channels = self.request.get("InputDataConfig", [])
        config = script_mode.input_data_config(channels, default_mode)
        port = free_port()
        for place in self._places(cores):
            folder = self.folder / place.host
            for name in OPT_ML_FOLDERS:
                (folder / name).mkdir(parents=True, exist_ok=True)
            for channel in channels:
                self.check_running()
                self._download(channel, place, folder)
            self._download_checkpoints(folder)
            self._write_config(folder, place, config)
            self._commands[place.host] = self._command(place, folder, config, port)

    def _places(self, cores: dict[str, int]) -> list[HostPlace]:
        from local_aws.processes import opt_ml_seen_at

        names = iter(self._names)
        groups = tuple(
            (group, kind, tuple(next(names) for _ in range(count))) for group, kind, count in self._groups
        )
        return [
            HostPlace(
                root=opt_ml_seen_at(self.folder / host),
                host=host,
                hosts=self._names,
                cores=cores[group],
                instance_type=kind,
                instance_group=group,
                instance_groups=groups,
            )
            for group, kind, hosts in groups
            for host in hosts
        ]

    def _download(self, channel: Document, place: HostPlace, folder: Path) -> None:
        source = channel["DataSource"]["S3DataSource"]
        wanted = source.get("InstanceGroupNames")
        if wanted and place.instance_group not in wanted:
            return
        try:
            objects = s3_data.list_source(self._s3, source["S3Uri"], source["S3DataType"])
            if source.get("S3DataDistributionType") == "ShardedByS3Key":
                seed = channel.get("ShuffleConfig", {}).get("Seed")
                objects = s3_data.shard(objects, place.hosts.index(place.host), len(place.hosts), seed)
            s3_data.download(self._s3, objects, folder / "input/data" / channel["ChannelName"])
        except DataError as error:
            raise DataError(f"Data download failed:{error}") from error

    def _download_checkpoints(self, folder: Path) -> None:
        checkpoints = self.request.get("CheckpointConfig")
        if checkpoints and len(self._names) >= 1:
            CheckpointSync(self._s3, checkpoints["S3Uri"], checkpoint_folder(folder, checkpoints)).download()

    def _write_config(self, folder: Path, place: HostPlace, channels: Document) -> None:
        for name, content in (
            ("hyperparameters", self._hyperparameters),
            ("inputdataconfig", channels),
            ("resourceconfig", script_mode.resource_config(place)),
        ):
            (folder / "input/config" / f"{name}.json").write_text(json.dumps(content))

    def _command(self, place: HostPlace, folder: Path, channels: Document, port: int) -> HostCommand:
        specification = self.request["AlgorithmSpecification"]
        decoded = script_mode.decode(self._hyperparameters)
        module_uri = str(decoded.get(script_mode.SUBMIT_DIRECTORY, ""))
        entrypoint = specification.get("ContainerEntrypoint")
        arguments = list(specification.get("ContainerArguments", []))
        if entrypoint:
            argv = self._image.command([*entrypoint, *arguments])
        else:
            argv = self._script_command(place, folder, decoded, port)
        env = self.context.job_environment(self.region)
        env |= script_mode.environment(place, self.name, self._hyperparameters, channels, module_uri)
        env |= machine_environment(place, self._image, port)
        env |= {"TRAINING_JOB_NAME": self.name, "TRAINING_JOB_ARN": self.arn, "SAGEMAKER_REGION": self.region}
        env |= self.request.get("Environment", {})
        cwd = folder if entrypoint else folder / "code"
        return HostCommand(
            place.host,
            argv,
            env,
            cwd,
            folder,
            log_stream(self.context, self.region, LOG_GROUP, self.name, place.host),
        )

    def _script_command(self, place: HostPlace, folder: Path, decoded: Document, port: int) -> list[str]:
        user, framework = script_mode.split(decoded)
        program = framework.get(script_mode.PROGRAM)
        if not program:
            raise JobFailed(
                "AlgorithmError: the image is run in script mode: set the hyperparameters sagemaker_program and "
                "sagemaker_submit_directory, or AlgorithmSpecification.ContainerEntrypoint"
            )
        self._unpack_code(str(framework.get(script_mode.SUBMIT_DIRECTORY, "")), folder)
        if not (folder / "code" / str(program)).exists() and str(program).endswith((".py", ".sh")):
            raise JobFailed(f"AlgorithmError: {script_mode.SUBMIT_DIRECTORY} holds no {program}")
        self._install_requirements(place, folder)
        has_setup = (folder / "code/setup.py").exists()
        argv = script_mode.command(self._image.interpreter, str(program), has_setup) + script_mode.arguments(
            user
        )
        if script_mode.runs_torchrun(framework, place):
            return script_mode.torchrun(self._image.interpreter, place, port, argv[1:])
        return argv

    def _install_requirements(self, place: HostPlace, folder: Path) -> None:
        wanted = folder / "code/requirements.txt"
        if not wanted.is_file():
            return
        log = log_stream(self.context, self.region, LOG_GROUP, self.name, place.host)
        offline = bool(self.request.get("EnableNetworkIsolation"))
        try:
            requirements.install(self._image.interpreter, wanted, folder / "packages", offline, log)
        except requirements.InstallFailed as error:
            raise JobFailed(cut(f"AlgorithmError: InstallRequirementsError: {error}")) from error
        finally:
            log.flush()

    def _unpack_code(self, source: str, folder: Path) -> None:
        code = folder / "code"
        if source.startswith("s3://"):
            bucket, key = s3_data.parse_uri(source)
            packed = folder / "tmp/sourcedir.tar.gz"
            s3_data.download(self._s3, [s3_data.S3Object(bucket, key, packed.name)], packed.parent)
            archive.unpack(packed, code)
            packed.unlink()
        elif source.startswith("/opt/ml/"):
            local = s3_data.safe_path(folder, source.removeprefix("/opt/ml/"))
            if local.is_dir():
                shutil.copytree(local, code, dirs_exist_ok=True)
            else:
                archive.unpack(local, code)

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
            if ending is None:
                self._end_early(wait_until)
            elif ending.status == CANNOT_MOUNT:
                raise JobFailed(f"{INTERNAL_ERROR}: {error_message(ending.tail)}")
            elif ending.status != 0:
                self._fail(ending)
            else:
                self._upload()
                self._end("Completed", "Completed", "Training job completed")
        finally:
            for sync in syncs:
                sync.stop()

    def _give_up(self) -> bool:
        return self.stop_requested.is_set() or self._interrupted or time.time() >= self._deadline

    def _end_early(self, wait_until: float) -> None:
        if self._interrupted and not self.stop_requested.is_set():
            self._hosts.terminate(INTERRUPTION_GRACE_SECONDS)
            return
        self._interrupted = False
        if self.stop_requested.is_set():
            secondary, message = "Stopped", "Training job stopped"
            self._step("Stopping", "Stopping the training job")
        elif time.time() >= wait_until:
            secondary, message = (
                "MaxWaitTimeExceeded",
                "Training job wait time exceeded MaxWaitTimeInSeconds provided",
            )
        else:
            secondary, message = (
                "MaxRuntimeExceeded",
                "Training job runtime exceeded MaxRuntimeInSeconds provided",
            )
        self._hosts.terminate(STOP_GRACE_SECONDS)
        self._upload()
        self._end("Stopped", secondary, message)

    def _fail(self, ending: Ending) -> None:
        """What the script wrote to output/failure, else the tail of its log."""
        code = ending.status if ending.status > 0 else 128 - ending.status
        self._upload_output()
        failure = self.folder / ending.host / "output/failure"
        if failure.is_file():
            text = failure.read_bytes()[:4096].decode("utf-8", "replace")
            raise JobFailed(cut(f"AlgorithmError: {text}, exit code: {code}"))
        command = " ".join(self._commands[ending.host].argv)[:TEXT_OF_COMMAND]
        error = error_message(ending.tail)
        text = f'AlgorithmError: ExecuteUserScriptError:\nExitCode {code}\nErrorMessage "{cut(error, 700)}"\n'
        raise JobFailed(cut(f'{text}Command "{command}", exit code: {code}'))

    def _upload(self) -> None:
        self._step("Uploading", "Uploading generated training model")
        packed = self.folder / "model.tar.gz"
        folders = [self.folder / name / "model" for name in self._names]
        uri = artefacts.upload(self._s3, self.request["OutputDataConfig"], self.name, folders, packed)
        self._upload_output()
        self.update({"ModelArtifacts": {"S3ModelArtifacts": uri}})

    def _upload_output(self) -> None:
        """output.tar.gz of /opt/ml/output/data, where a host left something there."""
        folders = [self.folder / name / "output/data" for name in self._names]
        if not all(archive.is_empty(folder) for folder in folders):
            packed = self.folder / "output.tar.gz"
            artefacts.upload(self._s3, self.request["OutputDataConfig"], self.name, folders, packed)

    def _checkpoint_syncs(self) -> list[CheckpointSync]:
        checkpoints = self.request.get("CheckpointConfig")
        if not checkpoints:
            return []
        folders = [checkpoint_folder(self.folder / host, checkpoints) for host in self._names]
        syncs = [CheckpointSync(self._s3, checkpoints["S3Uri"], folder) for folder in folders]
        for sync in syncs:
            sync.start()
        return syncs

    # --- records ---

    def _wait_limit(self) -> float:
        """When MaxWaitTimeInSeconds is over (epoch seconds): it covers waiting and all attempts."""
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
        """Raise Shutdown when local_aws ends."""
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

        self.context.store.update(self.kind, self.region, self.name, change)


def note_retry(context: Context, region: str, name: str) -> bool:
    """Count one more retry of a job, if its RetryStrategy allows one."""
    allowed = False

    def change(document: Document) -> None:
        nonlocal allowed
        used = document.get("_Retries", 0)
        allowed = used < document.get("RetryStrategy", {}).get("MaximumRetryAttempts", 0)
        document["_Retries"] = used + allowed

    context.store.update(KIND, region, name, change)
    return allowed


def note_objective(document: Document, metrics: list[Document]) -> None:
    """For a tuning job's trial: whether it has an objective, and which."""
    objective = document.get("_Objective")
    if objective is None:
        return
    value = next((m["Value"] for m in metrics if m["MetricName"] == objective["MetricName"]), None)
    if value is None or document["TrainingJobStatus"] == "Failed":
        document["ObjectiveStatus"] = "Failed"
        return
    document["ObjectiveStatus"] = "Succeeded"
    document["FinalHyperParameterTuningJobObjectiveMetric"] = {**objective, "Value": value}


def checkpoint_folder(folder: Path, checkpoints: Document) -> Path:
    """Where a host keeps its checkpoints; any LocalPath but one under /opt/ml was refused at creation."""
    local = checkpoints.get("LocalPath", "/opt/ml/checkpoints")
    return s3_data.safe_path(folder, local.removeprefix("/opt/ml/"))
