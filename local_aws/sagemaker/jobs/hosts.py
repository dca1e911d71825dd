"""The processes of a job's hosts: started, watched and ended together."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from local_aws.context import Context
from local_aws.execution.isolation import confined
from local_aws.execution.processes import ProcessGroup, namespaces_supported
from local_aws.sagemaker.jobs.job import Shutdown
from local_aws.state.logs import LogWriter

POLL_SECONDS = 0.05
STOP_GRACE_SECONDS = 120.0
"""AWS sends SIGTERM and gives a job 120 s to save its work."""
TAIL_LINES = 40

_addresses = itertools.count(1)


@dataclass(frozen=True)
class HostCommand:
    """The command of one host.

    Attributes:
        folder: Its /opt/ml.
        interpreter: The python of its image.
        log: Receives its output.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    folder: Path
    interpreter: str
    log: LogWriter


@dataclass(frozen=True)
class Ending:
    """The end of a job's processes.

    Attributes:
        status: Exit status of the first host that failed, else 0.
        host: Its name.
        tail: Its last log lines.
    """

    status: int
    host: str
    tail: tuple[str, ...]


def host_names(count: int) -> tuple[str, ...]:
    """Return the host names of a job, in SageMaker's order.

    Where a job can have its own /etc/hosts these are AWS's (`algo-1`), resolved by `addresses`; elsewhere they are
    loopback addresses.
    """
    if namespaces_supported():
        return tuple(f"algo-{index}" for index in range(1, count + 1))
    if count == 1:
        return ("localhost",)
    block = next(_addresses)
    return tuple(_address(block, index) for index in range(1, count + 1))


def addresses(names: Sequence[str]) -> dict[str, str]:
    """Assign each host of a job its own loopback address, so that two jobs may listen on the same port."""
    block = next(_addresses)
    return (
        {name: _address(block, index) for index, name in enumerate(names, start=1)}
        if namespaces_supported()
        else {}
    )


class Hosts:
    """A job's running hosts. `on_line` receives every line of every host."""

    def __init__(
        self, context: Context, kind: str, name: str, on_line: Callable[[str], object] | None = None
    ) -> None:
        self._context = context
        self._label = f"{kind}/{name}"
        self._groups: list[tuple[str, ProcessGroup]] = []
        self._tails: dict[str, deque[str]] = {}
        self._logs: list[LogWriter] = []
        self._on_line = on_line

    def start(self, commands: Sequence[HostCommand]) -> None:
        """Start every host.

        Raises:
            OSError: One cannot be started; the others are ended.
        """
        names = addresses([command.name for command in commands])
        try:
            for command in commands:
                record = self._context.records / f"{self._label}/{command.name}".replace("/", ".")
                group = ProcessGroup.start(
                    command.argv,
                    env=command.env,
                    cwd=command.cwd,
                    opt_ml=command.folder,
                    log=self._tee(command),
                    name=f"{self._label}/{command.name}",
                    record=record,
                    isolation=confined(
                        self._context.settings.state,
                        command.folder / "tmp",
                        interpreter=command.interpreter,
                        hosts=names,
                    ),
                )
                self._groups.append((command.name, group))
        except OSError:
            self.kill()
            raise

    def wait(self, give_up: Callable[[], bool]) -> Ending | None:
        """Wait until all hosts exit with 0 or one fails, which ends the others.

        Returns:
            The ending, or None when `give_up` returned true first.

        Raises:
            Shutdown: local_aws stops; all hosts are killed.
        """
        pause = 0.005
        while not give_up():
            if self._context.stopping.is_set():
                self.kill()
                raise Shutdown
            statuses = [(name, group.poll()) for name, group in self._groups]
            failed = next(((name, status) for name, status in statuses if status not in (None, 0)), None)
            if failed:
                self.kill()
                return self._ending(*failed)
            if all(status == 0 for _, status in statuses):
                self.kill()
                return self._ending(statuses[0][0], 0)
            time.sleep(pause)
            pause = min(pause * 1.5, POLL_SECONDS)
        return None

    def terminate(self, grace_seconds: float = STOP_GRACE_SECONDS) -> Ending:
        """Send SIGTERM to all hosts, then SIGKILL after the grace period."""
        import signal

        for _, group in self._groups:
            group.signal(signal.SIGTERM)
        deadline = time.monotonic() + grace_seconds
        ended = self.wait(lambda: time.monotonic() >= deadline or self._all_ended())
        self.kill()
        return ended or self._ending(self._groups[0][0], 0)

    def kill(self) -> None:
        """Kill every process and flush the logs."""
        for _, group in self._groups:
            group.kill()
        for log in self._logs:
            log.flush()

    def _all_ended(self) -> bool:
        return all(group.poll() is not None for _, group in self._groups)

    def _ending(self, host: str, status: int) -> Ending:
        return Ending(status=status, host=host, tail=tuple(self._tails.get(host, ())))

    def _tee(self, command: HostCommand) -> Callable[[bytes], None]:
        tail = self._tails.setdefault(command.name, deque(maxlen=TAIL_LINES))
        self._logs.append(command.log)

        def take(line: bytes) -> None:
            text = line.decode("utf-8", "replace")
            tail.append(text)
            command.log(line)
            if self._on_line:
                self._on_line(text)

        return take


def error_message(tail: tuple[str, ...]) -> str:
    """Return the last traceback of a log's tail, else its last lines."""
    starts = [
        index for index, line in enumerate(tail) if line.startswith("Traceback (most recent call last)")
    ]
    return "\n".join(tail[starts[-1] :] if starts else tail[-10:])


def log_stream(context: Context, region: str, group: str, job: str, host: str) -> LogWriter:
    """Open the CloudWatch stream of one host: `<job>/<host>-<epoch seconds>`."""
    label = host if host.startswith("algo-") else f"algo-{host}"
    return context.logs.writer(region, group, f"{job}/{label}-{int(time.time())}")


def _address(block: int, index: int) -> str:
    """Return 127.x.y.z; each job has a block of 200 addresses, from 127.64.0.1 on."""
    return f"127.{64 + block // 256 % 128}.{block % 256}.{index}"
