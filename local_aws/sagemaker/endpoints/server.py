"""One model server: started, pinged until healthy, restarted when it dies."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import urllib3

from local_aws.context import Context
from local_aws.errors import AwsError
from local_aws.execution.images import Contract
from local_aws.execution.isolation import Isolation, confined
from local_aws.execution.processes import ProcessGroup, opt_ml_seen_at
from local_aws.gateway.json_service import Document
from local_aws.sagemaker.endpoints.model_data import PACKAGES
from local_aws.sagemaker.jobs.machines import free_port
from local_aws.sagemaker.models import ROLE

logger = logging.getLogger(__name__)

PING_SECONDS = 0.05
"""Seconds between two pings of a server that is starting."""
WATCH_SECONDS = 0.2
"""Seconds until the end of a healthy process is noticed."""
PING_TIMEOUT = 2.0
STOP_SECONDS = 5.0
LONGEST_BACKOFF = 30.0
TAIL_LINES = 20
WORK = "work"
"""The working folder, apart from the model."""


class ServerFailed(Exception):
    """A server did not become healthy; the text ends with the tail of its log."""


@dataclass(frozen=True)
class ServerSpec:
    """A server to start.

    Attributes:
        name: For logs.
        argv: Its command.
        env: Its environment.
        opt_ml: The folder that it sees at /opt/ml.
        record: The record of its process group.
        isolation: Its view of the machine.
        startup_seconds: Time until it must be healthy.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    opt_ml: Path
    record: Path
    isolation: Isolation
    startup_seconds: float

    @classmethod
    def of(
        cls,
        context: Context,
        region: str,
        container: Document,
        *,
        name: str,
        opt_ml: Path,
        cores: int,
        startup_seconds: float,
        env: Mapping[str, str] | None = None,
    ) -> ServerSpec:
        """Describe the server of a model's container.

        A module (`python -m`) is found in the image's packages only, never in the model's folder.

        Raises:
            ServerFailed: No image serves the container.
        """
        try:
            image = context.images.require(container["Image"], Contract.SERVER)
        except AwsError as error:
            raise ServerFailed(error.message) from error
        program, *arguments = image.command(image.argv)
        safe = {"PYTHONSAFEPATH": "1"} if arguments[:1] == ["-m"] else {}
        for folder in (WORK, "tmp"):
            (opt_ml / folder).mkdir(exist_ok=True)
        return cls(
            name=name,
            argv=(program, *arguments),
            env={
                **context.job_environment(region, container.get(ROLE, "")),
                "HOME": f"{opt_ml_seen_at(opt_ml)}/{WORK}",
                **container.get("Environment", {}),
                **(env or {}),
                **safe,
                **_packages(opt_ml),
                "SM_NUM_CPUS": str(cores),
                "OMP_NUM_THREADS": str(cores),
            },
            opt_ml=opt_ml,
            record=context.records / name.replace(" ", "-").replace("/", "."),
            isolation=confined(context.settings.state, opt_ml / "tmp", interpreter=image.interpreter),
            startup_seconds=startup_seconds,
        )


class ModelServer:
    """A server that is restarted until `stop`. Thread-safe.

    `log` receives each line of its output; `log_stream` and `container` name it in error messages.
    """

    def __init__(
        self, spec: ServerSpec, log: Callable[[bytes], None], log_stream: str, container: str
    ) -> None:
        self.spec = spec
        self.log_stream = log_stream
        self.container = container
        self._log = log
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._changed = threading.Condition()
        self._healthy = False
        self._failure: str | None = None
        self._stopping = False
        self._group: ProcessGroup | None = None
        self._pool: urllib3.HTTPConnectionPool | None = None
        self._thread = threading.Thread(target=self._run, name=f"server {spec.name}", daemon=True)
        self._thread.start()

    @property
    def healthy(self) -> bool:
        """True while it answers pings."""
        return self._healthy

    @property
    def pid(self) -> int | None:
        """The process id of its group; None while it is not running."""
        group = self._group
        return None if group is None else group.pid

    def wait_healthy(self, cancelled: Callable[[], bool]) -> None:
        """Wait for the first healthy ping.

        Raises:
            ServerFailed: It did not become healthy, or the wait was cancelled.
        """
        with self._changed:
            while not self._healthy and self._failure is None:
                if cancelled():
                    raise ServerFailed("cancelled")
                self._changed.wait(0.2)
        if self._failure is not None:
            raise ServerFailed(self._failure)

    def request(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], timeout: float
    ) -> urllib3.BaseHTTPResponse:
        """Send one request; the response's body is not read yet.

        Raises:
            urllib3.exceptions.HTTPError: The server did not answer.
        """
        pool = self._pool
        if pool is None:
            raise urllib3.exceptions.ProtocolError("the server is not running")
        return pool.urlopen(
            method,
            path,
            body=body,
            headers=dict(headers),
            timeout=urllib3.Timeout(connect=5, read=timeout),
            retries=False,
            preload_content=False,
        )

    def suspect(self) -> None:
        """Stop sending requests until it answers a ping again."""
        self._set_healthy(False)

    def stop(self) -> None:
        """Stop the process with SIGTERM, then SIGKILL; return when it is gone."""
        with self._changed:
            self._stopping = True
            self._healthy = False
            self._changed.notify_all()
        group = self._group
        if group is not None:
            group.terminate(STOP_SECONDS)
        self._thread.join(STOP_SECONDS * 2)

    def _run(self) -> None:
        backoff, first = 0.2, True
        while not self._stopping:
            failure = self._serve()
            if self._stopping:
                return
            if first and failure is not None:
                # A server that never came up fails its deployment; one that did is always restarted.
                with self._changed:
                    self._failure = failure
                    self._changed.notify_all()
                return
            first = False
            backoff = 0.2 if failure is None else min(backoff * 2, LONGEST_BACKOFF)
            logger.warning("server %s ended; restarting it in %.1f s", self.spec.name, backoff)
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, backoff)

    def _serve(self) -> str | None:
        """Run the process to its end; return the reason when it never became healthy, else None."""
        port = free_port()
        self._tail.clear()
        try:
            group = ProcessGroup.start(
                self.spec.argv,
                env={**self.spec.env, "SAGEMAKER_BIND_TO_PORT": str(port)},
                cwd=self.spec.opt_ml / WORK,
                opt_ml=self.spec.opt_ml,
                log=self._take_line,
                name=self.spec.name,
                record=self.spec.record,
                isolation=self.spec.isolation,
            )
        except OSError as error:
            return f"cannot start {self.spec.argv[0]}: {error}"
        pool = urllib3.HTTPConnectionPool("127.0.0.1", port, maxsize=64, block=False)
        self._group, self._pool = group, pool
        try:
            if self._stopping:
                group.kill()
                return None
            failure = self._await_ping(group, pool)
            if failure is None:
                self._set_healthy(True)
                self._watch(group, pool)
                self._set_healthy(False)
            return failure
        finally:
            group.kill()
            pool.close()
            self._group = self._pool = None

    def _watch(self, group: ProcessGroup, pool: urllib3.HTTPConnectionPool) -> None:
        """Watch until the process ends; ping it again after a request failed."""
        while group.poll() is None and not self._stopping:
            with self._changed:
                self._changed.wait_for(lambda: not self._healthy, WATCH_SECONDS)
            if not self._healthy and group.poll() is None:
                self._set_healthy(_answers_ping(pool))
                time.sleep(PING_SECONDS)

    def _await_ping(self, group: ProcessGroup, pool: urllib3.HTTPConnectionPool) -> str | None:
        deadline = time.monotonic() + self.spec.startup_seconds
        while not self._stopping:
            status = group.poll()
            if status is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    group.wait(5)
                return f"The {self.container} container ended with exit status {status}. {self._tail_text()}"
            if _answers_ping(pool):
                return None
            if time.monotonic() > deadline:
                waited = f"{self.spec.startup_seconds:.0f} s"
                return f"The {self.container} container did not answer GET /ping in {waited}. {self._tail_text()}"
            time.sleep(PING_SECONDS)
        return "stopped"

    def _set_healthy(self, healthy: bool) -> None:
        with self._changed:
            self._healthy = healthy
            self._changed.notify_all()

    def _take_line(self, line: bytes) -> None:
        self._tail.append(line.decode("utf-8", "replace"))
        self._log(line)

    def _tail_text(self) -> str:
        lines = "\n".join(self._tail)
        return f"Its log ends with:\n{lines}" if lines else "It wrote no log."


def _packages(opt_ml: Path) -> dict[str, str]:
    """Return PYTHONPATH for the packages of the model's requirements.txt, where there are any."""
    return {"PYTHONPATH": f"{opt_ml_seen_at(opt_ml)}/{PACKAGES}"} if (opt_ml / PACKAGES).is_dir() else {}


def _answers_ping(pool: urllib3.HTTPConnectionPool) -> bool:
    try:
        return pool.request("GET", "/ping", timeout=PING_TIMEOUT, retries=False).status == 200
    except urllib3.exceptions.HTTPError:
        return False
