"""One command on one instance: run the script, deliver its output, record its end."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from local_aws.ec2.instance import Instance
from local_aws.execution.processes import ProcessGroup
from local_aws.state.beneath import NotRegular, open_beneath, read_beneath, remove_tree
from local_aws.state.logs import LogWriter
from local_aws.state.resources import Document, Missing

logger = logging.getLogger(__name__)

KIND = "ssm-invocation"
OUTPUT_CHARACTERS = 24_000
ERROR_CHARACTERS = 8_000
DEFAULT_EXECUTION_SECONDS = 3600
POLL_SECONDS = 0.1
STREAMS = ("stdout", "stderr")
ENDED = ("Success", "Failed", "TimedOut", "Cancelled")
"""Statuses that do not change any more."""


@dataclass(frozen=True)
class Script:
    """A script to run.

    Args:
        s3: (bucket, key prefix) for the complete output, or None.
        log_group: a CloudWatch log group, or "".
    """

    command_id: str
    commands: tuple[str, ...]
    working_directory: str
    execution_seconds: float
    s3: tuple[str, str] | None = None
    log_group: str = ""


class Invocation:
    """A running command. It records its end in the store; `cancel` ends it early."""

    def __init__(self, instance: Instance, script: Script) -> None:
        self._instance = instance
        self._script = script
        self._cancelled = threading.Event()
        self._folder = instance.machine / "commands" / script.command_id
        self._output = instance.folder / "output" / script.command_id
        self._thread = threading.Thread(target=self._run, name=f"command {script.command_id}", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """Its name in the store."""
        return f"{self._script.command_id}/{self._instance.id}"

    @property
    def alive(self) -> bool:
        """True until the command has ended."""
        return self._thread.is_alive()

    def cancel(self) -> None:
        """Kill it; it ends as Cancelled."""
        self._cancelled.set()

    def join(self, timeout: float) -> None:
        """Wait for its end."""
        self._thread.join(timeout)

    def _run(self) -> None:
        begun = time.time()
        try:
            self._update({"Status": "InProgress", "StatusDetails": "InProgress", "Begun": begun})
            outcome = self._execute(begun)
            if self._instance.context.stopping.is_set():
                return
            self._update({**outcome, "Ended": time.time()})
        except Missing:
            logger.debug("command %s was forgotten while it ran", self._script.command_id)
        except Exception as error:
            logger.exception("command %s failed inside local_aws", self._script.command_id)
            self._update(
                {
                    "Status": "Failed",
                    "StatusDetails": "Failed",
                    "ResponseCode": -1,
                    "Stderr": str(error),
                    "Ended": time.time(),
                }
            )
        finally:
            remove_tree(self._folder)
            remove_tree(self._output)

    def _update(self, members: Document) -> None:
        context, region = self._instance.context, self._instance.region
        context.store.update(KIND, region, self.name, lambda document: document.update(members))

    def _execute(self, begun: float) -> Document:
        self._folder.mkdir(parents=True)
        script = self._folder / "_script.sh"
        script.write_text("\n".join(self._script.commands) + "\n")
        script.chmod(0o755)
        self._output.mkdir(parents=True)
        paths = [self._output / stream for stream in STREAMS]
        for path in paths:
            path.touch()
        cwd = Path(self._script.working_directory or self._instance.home)
        wrapper = 'cd "$3" && exec sh -c "$0" >"$1" 2>"$2"'
        argv = ["sh", "-c", wrapper, str(script), *map(str, paths), str(cwd)]
        try:
            group = self._instance.start(
                argv, self._instance.home, self._folder / "start", self._script.command_id, self._output
            )
        except OSError as error:
            return {"Status": "Failed", "StatusDetails": "Failed", "ResponseCode": -1, "Stderr": str(error)}
        try:
            state, code = self._await(group, begun)
        finally:
            self._instance.forget(group)
        output, errors = (_text(self._output, stream) for stream in STREAMS)
        if state == "Failed":
            started = _text(self._folder, "start")
            errors += f"{started}failed to run commands: exit status {code}"
        self._upload()
        details = {"TimedOut": "ExecutionTimedOut"}.get(state, state)
        return {
            "Status": state,
            "StatusDetails": details,
            "ResponseCode": code,
            "Stdout": output[:OUTPUT_CHARACTERS],
            "Stderr": errors[:ERROR_CHARACTERS],
        }

    def _await(self, group: ProcessGroup, begun: float) -> tuple[str, int]:
        """Follow the output to the end; (status, exit code)."""
        writers = self._writers()
        offsets = dict.fromkeys(STREAMS, 0)
        state = ""
        while True:
            try:
                code = group.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                code = None
            for stream, writer in writers.items():
                offsets[stream] = _follow(
                    self._output, stream, offsets[stream], writer, last=code is not None
                )
            if code is not None:
                break
            if self._cancelled.is_set() or self._instance.context.stopping.is_set():
                state = "Cancelled"
                group.kill()
            elif time.time() - begun > self._script.execution_seconds:
                state = "TimedOut"
                group.kill()
        for writer in writers.values():
            writer.close()
        if state:
            return state, -1
        # A shell reports a program that a signal ended as 128 plus its number.
        return ("Success" if code == 0 else "Failed"), (code if code >= 0 else 128 - code)

    def _writers(self) -> dict[str, LogWriter]:
        if not self._script.log_group:
            return {}
        prefix = f"{self._script.command_id}/{self._instance.id}/aws-runShellScript"
        logs, region = self._instance.context.logs, self._instance.region
        return {
            stream: logs.writer(region, self._script.log_group, f"{prefix}/{stream}") for stream in STREAMS
        }

    def _upload(self) -> None:
        if self._script.s3 is None:
            return
        bucket, prefix = self._script.s3
        s3 = self._instance.context.client("s3", self._instance.region)
        for stream in STREAMS:
            key = output_key(prefix, self._script.command_id, self._instance.id, stream)
            try:
                with open_beneath(self._output, stream) as file:
                    if os.fstat(file.fileno()).st_size:
                        s3.upload_fileobj(file, bucket, key)
            except Exception as error:  # boto3 wraps its own errors in several unrelated classes
                logger.warning("output of %s could not be uploaded: %s", self._script.command_id, error)


def output_key(prefix: str, command_id: str, instance_id: str, stream: str) -> str:
    """Return the S3 key under which SSM stores a command's output."""
    parts = [prefix.strip("/"), command_id, instance_id, "awsrunShellScript", "0.awsrunShellScript", stream]
    return "/".join(part for part in parts if part)


def _text(folder: Path, name: str) -> str:
    return read_beneath(folder, name).decode("utf-8", "replace")


def _follow(folder: Path, name: str, offset: int, writer: LogWriter, last: bool) -> int:
    """Deliver the lines written since `offset` and return the new offset.

    An unfinished line waits, unless `last` is set.
    """
    try:
        with open_beneath(folder, name) as file:
            file.seek(offset)
            chunk = file.read()
    except (FileNotFoundError, NotRegular):
        return offset  # the command has removed or replaced its own output
    end = len(chunk) if last else chunk.rfind(b"\n") + 1
    for line in chunk[:end].splitlines():
        writer(line)
    return offset + end


def remove_leftovers(folder: Path) -> None:
    """Delete the folders of commands that an earlier process ran."""
    for pattern in ("*/commands", "*/machine/commands", "*/output"):
        for path in folder.glob(pattern):
            if path.is_symlink():
                path.unlink()
            else:
                remove_tree(path)
