"""One EC2 instance: a folder, an environment, user data at its first boot, and commands."""

from __future__ import annotations

import base64
import logging
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from moto.ec2.models import ec2_backends

from local_aws.context import Context
from local_aws.ec2 import shims
from local_aws.execution.capacity import instance_cores
from local_aws.execution.isolation import Isolation, confined
from local_aws.execution.processes import ProcessGroup, namespaces_supported
from local_aws.settings import ACCOUNT_ID
from local_aws.state.beneath import own_folder, read_beneath, remove_tree

logger = logging.getLogger(__name__)

KIND = "ec2-instance"
"""Resources of the store: what is run here of each instance. moto keeps all that clients see."""
CONSOLE_BYTES = 64 * 1024
CONTROL_BYTES = 256
STOP_SECONDS = 2.0


class Instance:
    """The processes of an instance. Thread-safe."""

    def __init__(self, context: Context, region: str, instance_id: str, metadata: str) -> None:
        self.context, self.region, self.id = context, region, instance_id
        self.folder: Path = context.settings.state / "instances" / instance_id
        self._metadata = metadata
        self._groups: set[ProcessGroup] = set()
        self._lock = threading.Lock()
        self._ended = False

    @property
    def machine(self) -> Path:
        """The part that the instance can only read: programs, user data, scripts of commands."""
        return self.folder / "machine"

    @property
    def home(self) -> Path:
        """HOME and the initial working directory."""
        return self.folder / "home"

    @property
    def control(self) -> Path:
        """The file in which a shutdown requested from inside is recorded."""
        return self.folder / "home" / ".shutdown"

    @property
    def console(self) -> Path:
        """The output of user data, which GetConsoleOutput returns."""
        return self.machine / "console.log"

    @property
    def pids(self) -> list[int]:
        """Process ids of the groups that run on the instance."""
        with self._lock:
            return [group.pid for group in self._groups]

    def boot(self, user_data: bytes) -> None:
        """Create the folder and start user data that is a script; return at once."""
        own_folder(self.folder)
        for folder in (self.machine, self.home, self.folder / "tmp"):
            own_folder(folder)
        shims.install(self.machine / "bin", self.control)
        if not user_data.startswith(b"#!"):
            if user_data.strip():
                self.console.write_text(
                    "local_aws runs user data that begins with #!; this was kept, but not run.\n"
                )
            return
        script = self.machine / "user-data"
        script.write_bytes(user_data)
        script.chmod(0o755)
        group = self.start([str(script)], self.home, self.console, "user data")
        threading.Thread(target=self._await, args=(group,), name=f"user data {self.id}", daemon=True).start()

    def start(
        self, argv: list[str], cwd: Path, log: Path, what: str, output: Path | None = None
    ) -> ProcessGroup:
        """Start a program on the instance.

        Args:
            argv: program and arguments.
            cwd: working directory.
            log: file to append its output to, which the instance does not see.
            what: name of the program for log lines, such as "user data".
            output: a further folder that the program may write.

        Raises:
            OSError: the instance has ended, or the program cannot be started.
        """
        with self._lock:
            if self._ended:
                raise OSError(f"instance {self.id} has ended")
            group = ProcessGroup.start(
                argv,
                env=self.environment(),
                cwd=cwd,
                log=log,
                name=f"instance {self.id}: {what}",
                record=self.context.records / f"{self.id}-{time.time_ns()}",
                isolation=self._isolation(output),
            )
            self._groups.add(group)
            return group

    def forget(self, group: ProcessGroup) -> None:
        """Drop an ended group."""
        with self._lock:
            self._groups.discard(group)

    def halt(self) -> None:
        """Kill every process of the instance."""
        with self._lock:
            self._ended = True
            groups = list(self._groups)
        for group in groups:
            group.kill()
        self.control.unlink(missing_ok=True)

    def resume(self) -> None:
        """Allow programs to start again after a stop or reboot."""
        with self._lock:
            self._ended = False

    def remove(self) -> None:
        """Kill everything and delete the folder."""
        self.halt()
        remove_tree(self.folder)

    def console_output(self) -> bytes:
        """Return the last 64 KiB of user data's output."""
        return read_beneath(self.machine, self.console.name, most=CONSOLE_BYTES)

    def shutdown_request(self) -> str:
        """Return what the shutdown shims have written down, "" for nothing."""
        return read_beneath(self.home, self.control.name, most=CONTROL_BYTES).decode("utf-8", "replace")

    def environment(self) -> dict[str, str]:
        """Return the environment of its programs: its own home and this AWS, through the instance's role."""
        cores = min(
            instance_cores(moto_instance(self.region, self.id).instance_type), self.context.settings.cores
        )
        return {
            "PATH": f"{self.machine / 'bin'}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.home),
            "USER": "root",
            "LANG": "C.UTF-8",
            "TMPDIR": "/tmp" if namespaces_supported() else str(self.folder / "tmp"),
            "PYTHONUNBUFFERED": "1",
            "AWS_ENDPOINT_URL": self.context.url,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": self._metadata,
            # SDKs give up after one try of one second, which a busy machine of two cores may not keep.
            "AWS_METADATA_SERVICE_TIMEOUT": "10",
            "AWS_METADATA_SERVICE_NUM_ATTEMPTS": "3",
            "SM_NUM_CPUS": str(cores),
            "OMP_NUM_THREADS": str(cores),
        }

    def _isolation(self, output: Path | None) -> Isolation:
        written = [self.home, *([output] if output else [])]
        return confined(
            self.context.settings.state,
            self.folder / "tmp",
            binds={str(folder): folder for folder in written},
            shown=[self.machine],
        )

    def _await(self, group: ProcessGroup) -> None:
        try:
            status = group.wait()
        except subprocess.TimeoutExpired:
            return
        self.forget(group)
        logger.info("user data of %s ended with %d", self.id, status)


def moto_instance(region: str, instance_id: str) -> Any:
    """Return moto's record of an instance. Raises moto's InvalidInstanceIdError."""
    return ec2_backends[ACCOUNT_ID][region].get_instance(instance_id)


def user_data_of(region: str, instance_id: str) -> bytes:
    """Return an instance's user data, decoded."""
    encoded = moto_instance(region, instance_id).user_data
    if not encoded:
        return b""
    text = encoded if isinstance(encoded, bytes) else str(encoded).encode()
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return text


def role_of(region: str, instance_id: str) -> str | None:
    """Return the ARN of the role in the instance's profile, or None."""
    association = ec2_backends[ACCOUNT_ID][region].iam_instance_profile_associations.get(instance_id)
    profile = getattr(association, "iam_instance_profile", None)
    roles = getattr(profile, "roles", None) or []
    return str(roles[0].arn) if roles else None


def tags_of(region: str, instance_id: str) -> dict[str, str]:
    """Return an instance's tags; none for one that EC2 has forgotten."""
    for instance in ec2_backends[ACCOUNT_ID][region].all_instances():
        if instance.id == instance_id:
            return {tag["key"]: tag["value"] for tag in instance.get_tags()}
    return {}
