"""A running processing job: inputs to folders, the container's command on every host, outputs to S3."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

from local_aws.context import Context
from local_aws.execution.images import Image
from local_aws.execution.processes import opt_ml_seen_at
from local_aws.sagemaker import s3_data
from local_aws.sagemaker.jobs.checkpoints import CheckpointSync
from local_aws.sagemaker.jobs.hosts import (
    STOP_GRACE_SECONDS,
    Ending,
    HostCommand,
    Hosts,
    error_message,
    host_names,
    log_stream,
)
from local_aws.sagemaker.jobs.job import Job, JobFailed, JobStopped, cut
from local_aws.sagemaker.jobs.machines import install_programs, machine_environment
from local_aws.sagemaker.jobs.python_layer import PACKAGES
from local_aws.sagemaker.jobs.script_mode import HostPlace, resource_config
from local_aws.sagemaker.s3_data import DataError
from local_aws.sagemaker.trees import Tree
from local_aws.sagemaker.uploads import upload_tree
from local_aws.state.resources import Document, Resource

KIND = "processing-job"
LOG_GROUP = "/aws/sagemaker/ProcessingJobs"
ROOT = "/opt/ml/processing/"
DEFAULT_RUNTIME_SECONDS = 86400


class ProcessingJob(Job):
    """A processing job."""

    kind = KIND

    def __init__(self, context: Context, resource: Resource, image: Image) -> None:
        super().__init__(context, resource)
        self._image = image
        self._s3 = context.client("s3", self.region, self.request["RoleArn"])
        cluster = self.request["ProcessingResources"]["ClusterConfig"]
        self._instance_type, self._names = cluster["InstanceType"], host_names(cluster["InstanceCount"])
        self._hosts = Hosts(context, self.kind, f"{self.region}/{self.name}")

    def execute(self) -> None:
        """Run from capacity to uploaded outputs."""
        cores = self.context.capacity.share(self._instance_type, len(self._names))
        with self.take_cores(cores * len(self._names)):
            self.update({"ProcessingStartTime": time.time()})
            try:
                self._run_on_instances(cores)
            except DataError as error:
                raise JobFailed(f"ClientError: {error}") from error
            finally:
                self._hosts.kill()

    def _run_on_instances(self, cores: int) -> None:
        commands = [self._prepare(host, cores) for host in self._names]
        self.check_running()
        stopping = self.request.get("StoppingCondition", {})
        deadline = time.time() + stopping.get("MaxRuntimeInSeconds", DEFAULT_RUNTIME_SECONDS)
        try:
            self._hosts.start(commands)
        except OSError as error:
            raise JobFailed(f"InternalServerError: the process could not be started: {error}") from error
        continuous = self._continuous_outputs()
        try:
            ending = self._hosts.wait(lambda: self.stop_requested.is_set() or time.time() >= deadline)
            if ending is None:
                self._hosts.terminate(STOP_GRACE_SECONDS)
        finally:
            for sync in continuous:
                sync.stop()
        if ending is not None and ending.status != 0:
            self._fail(ending)
            return
        self._upload()
        message = self._exit_message(self._names[0])
        if ending is not None:
            self.mark("Completed", **message)
        elif self.stop_requested.is_set():
            self.mark("Stopped", **message)
        else:
            raise JobStopped("MaxRuntimeExceeded: the job ran longer than MaxRuntimeInSeconds")

    def _prepare(self, host: str, cores: int) -> HostCommand:
        folder = self.folder / host
        place = HostPlace(
            root=opt_ml_seen_at(folder),
            host=host,
            hosts=self._names,
            cores=cores,
            instance_type=self._instance_type,
        )
        for name in ("processing", "config", "output", "tmp", "code"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for entry in self.request.get("ProcessingInputs", []):
            self.check_running()
            if not entry.get("AppManaged"):
                self._download(entry["S3Input"], place, folder)
        for output in self._outputs():
            local_folder(folder, output["LocalPath"]).mkdir(parents=True, exist_ok=True)
        (folder / "config/resourceconfig.json").write_text(json.dumps(resource_config(place)))
        (folder / "config/processingjobconfig.json").write_text(json.dumps(config_of(self.request)))
        env = self.context.job_environment(self.region, self.request["RoleArn"]) | machine_environment(
            place, self._image, port=0
        )
        env |= {
            "PYTHONPATH": f"{place.root}/{PACKAGES}",
            "PROCESSING_JOB_NAME": self.name,
            "PROCESSING_JOB_ARN": self.arn,
            "SM_NUM_CPUS": str(cores),
            "SM_HOSTS": json.dumps(list(self._names)),
            "SM_CURRENT_HOST": host,
            **self.request.get("Environment", {}),
        }
        install_programs(folder, self._image)
        log = log_stream(self.context, self.region, LOG_GROUP, self.name, host)
        argv = command(self._image, self.request["AppSpecification"])
        return HostCommand(host, argv, env, folder / "processing", folder, self._image.interpreter, log)

    def _download(self, source: Document, place: HostPlace, folder: Path) -> None:
        try:
            objects = s3_data.list_source(self._s3, source["S3Uri"], source["S3DataType"])
            if source.get("S3DataDistributionType") == "ShardedByS3Key":
                objects = s3_data.shard(objects, place.hosts.index(place.host), len(place.hosts))
            s3_data.download(self._s3, objects, local_folder(folder, source["LocalPath"]))
        except DataError as error:
            raise DataError(f"Data download failed:{error}") from error

    def _outputs(self) -> list[Document]:
        outputs = self.request.get("ProcessingOutputConfig", {}).get("Outputs", [])
        return [output["S3Output"] for output in outputs if not output.get("AppManaged")]

    def _continuous_outputs(self) -> list[CheckpointSync]:
        syncs = [
            CheckpointSync(self._s3, output["S3Uri"], local_tree(self.folder / host, output["LocalPath"]))
            for output in self._outputs()
            if output["S3UploadMode"] == "Continuous"
            for host in self._names
        ]
        for sync in syncs:
            sync.start()
        return syncs

    def _upload(self) -> None:
        """Upload every host's outputs to the same prefixes.

        As on AWS, hosts must give their files different names.
        """
        for output in self._outputs():
            for host in self._names:
                if output["S3UploadMode"] == "EndOfJob":
                    upload_tree(
                        self._s3, local_tree(self.folder / host, output["LocalPath"]), output["S3Uri"]
                    )

    def _fail(self, ending: Ending) -> None:
        code = ending.status if ending.status > 0 else 128 - ending.status
        message = self._exit_message(ending.host)
        self.mark(
            "Failed",
            FailureReason=cut(f"AlgorithmError: {error_message(ending.tail)}, exit code: {code}"),
            **message,
        )

    def _exit_message(self, host: str) -> dict[str, object]:
        """Read the ExitMessage that the container wrote to /opt/ml/output/message."""
        message = Tree.at(self.folder / host, "output").read("message", 1024)
        return {"ExitMessage": message.decode("utf-8", "replace")} if message else {}


def command(image: Image, specification: Mapping[str, object]) -> list[str]:
    """Return the command of an AppSpecification; without an entrypoint, the image's own."""
    entrypoint = specification.get("ContainerEntrypoint") or list(image.argv)
    arguments = specification.get("ContainerArguments", [])
    assert isinstance(entrypoint, list)
    assert isinstance(arguments, list)
    return image.command([*entrypoint, *arguments])


def local_folder(folder: Path, local: str) -> Path:
    """Map `/opt/ml/processing/input/x` to a host's folder.

    Raises:
        DataError: The path is outside /opt/ml/processing.
    """
    if not local.startswith(ROOT):
        raise DataError(f"{local} is not under {ROOT}")
    return s3_data.safe_path(folder / "processing", local.removeprefix(ROOT))


def local_tree(folder: Path, local: str) -> Tree:
    """Return an output folder of a host as a tree. Raises as `local_folder`."""
    return Tree(folder, local_folder(folder, local).relative_to(folder).parts)


def config_of(request: Document) -> Document:
    """Build processingjobconfig.json: the request, as the container may read it."""
    members = (
        "ProcessingJobArn", "ProcessingJobName", "AppSpecification", "Environment", "ProcessingInputs",
        "ProcessingOutputConfig", "ProcessingResources", "RoleArn", "StoppingCondition", "NetworkConfig",
    )  # fmt: skip
    return {member: request[member] for member in members if member in request}
