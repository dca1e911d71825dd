"""Preparation of a training job's hosts: /opt/ml with channels, code and configuration, and the command."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from local_aws.context import Context
from local_aws.execution.images import Image
from local_aws.execution.processes import opt_ml_seen_at
from local_aws.sagemaker import archive, s3_data
from local_aws.sagemaker.jobs import machines, requirements, script_mode
from local_aws.sagemaker.jobs.checkpoints import CheckpointSync
from local_aws.sagemaker.jobs.hosts import HostCommand, log_stream
from local_aws.sagemaker.jobs.job import JobFailed, cut
from local_aws.sagemaker.jobs.machines import free_port, machine_environment
from local_aws.sagemaker.jobs.script_mode import HostPlace
from local_aws.sagemaker.s3_data import DataError
from local_aws.sagemaker.trees import Tree
from local_aws.state.resources import Document

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


class TrainingSetup:
    """Prepares the hosts of one attempt at a training job. `folder` holds one folder per host."""

    def __init__(
        self, context: Context, region: str, request: Document, image: Image, s3: Any, folder: Path
    ) -> None:
        self._context, self._region, self._image, self._s3 = context, region, image, s3
        self._request, self._folder = request, folder
        self._name: str = request["TrainingJobName"]
        self._hyperparameters: dict[str, str] = request.get("HyperParameters", {})
        self._port = free_port()

    def places(
        self, groups: list[tuple[str, str, int]], names: tuple[str, ...], cores: dict[str, int]
    ) -> list[HostPlace]:
        """Return the hosts of the instance groups (group, instance type, count), each with its share of `cores`."""
        rest = iter(names)
        members = tuple(
            (group, kind, tuple(next(rest) for _ in range(count))) for group, kind, count in groups
        )
        return [
            HostPlace(
                root=opt_ml_seen_at(self._folder / host),
                host=host,
                hosts=names,
                cores=cores[group],
                instance_type=kind,
                instance_group=group,
                instance_groups=members,
            )
            for group, kind, hosts in members
            for host in hosts
        ]

    def prepare(self, place: HostPlace, check_running: Callable[[], None]) -> HostCommand:
        """Fill a host's folder.

        Returns:
            The host's command.

        Raises:
            DataError: Data or code cannot be provided.
            JobFailed: The code cannot run.
            JobStopped: From `check_running`, as Shutdown.
        """
        channels = self._request.get("InputDataConfig", [])
        mode = self._request["AlgorithmSpecification"]["TrainingInputMode"]
        config = script_mode.input_data_config(channels, mode)
        folder = self._folder / place.host
        for name in OPT_ML_FOLDERS:
            (folder / name).mkdir(parents=True, exist_ok=True)
        for channel in channels:
            check_running()
            self._download(channel, place, folder)
        self._download_checkpoints(folder)
        self._write_config(folder, place, config)
        machines.install_programs(folder, self._image)
        return self._command(place, folder, config)

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
        checkpoints = self._request.get("CheckpointConfig")
        if checkpoints:
            CheckpointSync(self._s3, checkpoints["S3Uri"], checkpoint_tree(folder, checkpoints)).download()

    def _write_config(self, folder: Path, place: HostPlace, channels: Document) -> None:
        for name, content in (
            ("hyperparameters", self._hyperparameters),
            ("inputdataconfig", channels),
            ("resourceconfig", script_mode.resource_config(place)),
        ):
            (folder / "input/config" / f"{name}.json").write_text(json.dumps(content))

    def _command(self, place: HostPlace, folder: Path, channels: Document) -> HostCommand:
        specification = self._request["AlgorithmSpecification"]
        decoded = script_mode.decode(self._hyperparameters)
        module_uri = str(decoded.get(script_mode.SUBMIT_DIRECTORY, ""))
        entrypoint = specification.get("ContainerEntrypoint")
        arguments = list(specification.get("ContainerArguments", []))
        if entrypoint:
            argv = self._image.command([*entrypoint, *arguments])
        else:
            argv = self._script_command(place, folder, decoded)
        env = self._context.job_environment(self._region, self._request["RoleArn"])
        env |= script_mode.environment(place, self._name, self._hyperparameters, channels, module_uri)
        env |= machine_environment(place, self._image, self._port)
        env |= {
            "TRAINING_JOB_NAME": self._name,
            "TRAINING_JOB_ARN": self._request["TrainingJobArn"],
            "SAGEMAKER_REGION": self._region,
        }
        env |= self._request.get("Environment", {})
        cwd = folder if entrypoint else folder / "code"
        return HostCommand(
            place.host,
            argv,
            env,
            cwd,
            folder,
            self._image.interpreter,
            log_stream(self._context, self._region, LOG_GROUP, self._name, place.host),
        )

    def _script_command(self, place: HostPlace, folder: Path, decoded: Document) -> list[str]:
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
        if str(program).endswith(".sh"):
            self._make_executable(folder, str(program))
        self._install_requirements(place, folder)
        has_setup = (folder / "code/setup.py").exists()
        argv = script_mode.command(self._image.interpreter, str(program), has_setup) + script_mode.arguments(
            user
        )
        if script_mode.runs_torchrun(framework, place):
            return script_mode.torchrun(self._image.interpreter, place, self._port, argv[1:])
        return argv

    def _make_executable(self, folder: Path, program: str) -> None:
        """Set the x bit of a shell script, as the toolkit does: archives of Windows and CI lack it."""
        try:
            with Tree.at(folder, "code").open(program.removeprefix("./")) as file:
                os.fchmod(file.fileno(), 0o755)
        except OSError as error:
            raise JobFailed(f"AlgorithmError: {program} cannot be made executable: {error}") from error

    def _install_requirements(self, place: HostPlace, folder: Path) -> None:
        if not (folder / "code/requirements.txt").is_file():
            return
        log = log_stream(self._context, self._region, LOG_GROUP, self._name, place.host)
        installer = requirements.Installer(
            interpreter=self._image.interpreter,
            state=self._context.settings.state,
            folder=folder,
            record=self._context.records / f"pip.{self._region}.{self._name}.{place.host}",
            offline=bool(self._request.get("EnableNetworkIsolation")),
            log=log,
        )
        try:
            installer.install()
        except (requirements.InstallFailed, OSError) as error:
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


def checkpoint_tree(folder: Path, checkpoints: Document) -> Tree:
    """Return a host's checkpoint folder; creation refuses a LocalPath outside /opt/ml."""
    local = checkpoints.get("LocalPath", "/opt/ml/checkpoints").removeprefix("/opt/ml/")
    s3_data.safe_path(folder, local)
    return Tree.at(folder, local)
