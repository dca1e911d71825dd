"""The parent of the server processes: owns the port and the unpacked bundle; starts, restarts and stops them.

It imports no numpy and starts no thread, so forking is safe and cheap.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any

from model_code.bundle.archive import Bundle
from model_code.bundle.card import BundleError
from model_code.serve.concurrency import Arrangement
from model_code.serve.metrics import Board
from model_code.serve.settings import MOST_PROCESSES, STOP_SIGNALS, Settings

_SIGNALS = (*STOP_SIGNALS, signal.SIGCHLD)
_BACK_OFF = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
_HEALTHY_SECONDS = 10.0
"""A process that ran this long resets the failure count."""
_STOP_GRACE = 5.0
"""Seconds beyond the drain time-out after which a remaining process counts as stuck and is killed."""


class ServeError(Exception):
    """The server cannot start or continue; the message is one line that names the fix."""


@dataclass
class Child:
    """A server process."""

    row: int
    pid: int
    pipe: int
    started: float
    ready: bool = False
    heard: bytes = b""


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        ServeError: the port is taken or the address is not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        if port and error.errno in (98, 48):  # EADDRINUSE on Linux and macOS
            raise ServeError(
                f"port {port} is in use: choose another with --port, or stop the program that uses it"
            ) from error
        raise ServeError(
            f"cannot listen on {host}:{port} ({error.strerror or error}): check --host and --port"
        ) from error
    return listener


def check_log(target: str) -> None:
    """Check that the access log can be written, before a client waits for a server that cannot start.

    Raises:
        ServeError: it cannot.
    """
    if target not in ("-", "off"):
        try:
            open(target, "ab").close()
        except OSError as error:
            raise ServeError(
                f"cannot write {target} ({error.strerror or error}): check --access-log"
            ) from error


class Supervisor:
    """Runs the server until SIGTERM or SIGINT."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._children: dict[int, Child] = {}
        self._failures = 0
        self._restarts: list[tuple[float, int]] = []
        self._arrangement: Arrangement | None = None
        self._announced = False
        self._stop_by: float | None = None
        """When the stop is over, on the monotonic clock; None before a stop was requested."""

    def run(self) -> int:
        """Serve; the exit status.

        Raises:
            ServeError, BundleError: it cannot start.
        """
        check_log(self._settings.access_log)
        listener = bind(self._settings.host, self._settings.port)
        with listener, Bundle.open(self._settings.model) as bundle:
            self._listener = listener
            self._directory = bundle.directory
            self._board = Board(MOST_PROCESSES)
            self._lifeline, self._hold = os.pipe()
            self._selector = selectors.DefaultSelector()
            self._watch_signals()
            self._start(0)
            try:
                return self._loop()
            finally:
                self._end_all()

    def _watch_signals(self) -> None:
        wake, alarm = os.pipe()
        os.set_blocking(alarm, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(alarm, warn_on_full_buffer=False)
        self._selector.register(wake, selectors.EVENT_READ, "signal")
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _on_stop(self, *_: object) -> None:
        again = self._stop_by is not None
        for child in self._children.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL if again else signal.SIGTERM)
        if not again:
            self._stop_by = time.monotonic() + self._settings.limits.drain_timeout + _STOP_GRACE
            # While any process holds the port open, the kernel accepts connections that will never be answered.
            self._listener.close()

    def _loop(self) -> int:
        while self._children or (self._restarts and self._stop_by is None):
            for key, _ in self._selector.select(self._next_deadline()):
                if key.data == "signal":
                    os.read(key.fd, 4096)
                else:
                    self._receive(key.data)
            self._reap()
            self._restart_due()
            if self._stop_by is not None and time.monotonic() >= self._stop_by and self._children:
                print("warning: killed a server process that did not stop", file=sys.stderr, flush=True)
                self._end_all()
        return 0

    def _start(self, row: int) -> None:
        pipe, theirs = os.pipe()
        # Until the child has its own handlers, a stop must not run ours in it; and a stop during the fork has to find
        # it among the children.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        pid = os.fork()
        if pid == 0:
            os.close(pipe)
            self._become_worker(row, theirs)
        os.close(theirs)
        child = Child(row, pid, pipe, time.monotonic())
        self._children[pid] = child
        self._selector.register(pipe, selectors.EVENT_READ, child)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def _become_worker(self, row: int, pipe: int) -> None:
        """In the forked process; never returns."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            # A stop waits until the process asks for it (`Worker.serve`): every thread inherits this, also those that
            # the runtime makes, or a second signal (a terminal's Ctrl-C reaches all) would kill through one of them.
            signal.pthread_sigmask(signal.SIG_SETMASK, STOP_SIGNALS)
            self._selector.close()
            os.close(self._hold)
            # Each worker thread is a core's worth already; numpy's own pool would only fight them.
            os.environ["OPENBLAS_NUM_THREADS"] = "1"
            from model_code.serve.worker import Worker, report

            worker = Worker(self._settings, self._directory, self._listener, self._board, row)
            try:
                arrangement = worker.prepare(self._arrangement)
            except BundleError as error:
                report(pipe, {"error": str(error)})
            else:
                ready = {"arrangement": arrangement.to_json(), "description": worker.describe()}
                worker.serve(self._lifeline, lambda: report(pipe, ready))
                status = 0
        except BaseException as error:
            print(f"error: server process: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(status)

    def _receive(self, child: Child) -> None:
        data = os.read(child.pipe, 65536)
        if not data:
            self._selector.unregister(child.pipe)
            os.close(child.pipe)
            return
        child.heard += data
        if child.heard.endswith(b"\n"):
            self._handle_message(child, json.loads(child.heard))

    def _handle_message(self, child: Child, message: dict[str, Any]) -> None:
        if self._stop_by is not None:
            return
        if "error" in message:
            raise BundleError(message["error"])
        child.ready = True
        if self._arrangement is None:
            self._arrangement = Arrangement(**message["arrangement"])
            for row in range(1, self._arrangement.processes):
                if self._stop_by is None:
                    self._start(row)
        if not self._announced and all(child.ready for child in self._children.values()):
            self._announced = True
            host, port = self._listener.getsockname()[:2]
            print(f"serving {message['description']} on http://{host}:{port}", file=sys.stderr, flush=True)

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            child = self._children.pop(pid, None)
            code = os.waitstatus_to_exitcode(status)
            if child is not None and self._stop_by is None:
                self._schedule_restart(child, code)
            elif code:
                print(
                    f"warning: server process {pid} ended with {_how(code)} before its requests were answered",
                    file=sys.stderr,
                    flush=True,
                )

    def _schedule_restart(self, child: Child, code: int) -> None:
        """Restart a process that ended by itself, with growing delays; give up if none becomes ready."""
        lived = time.monotonic() - child.started
        if child.ready and lived > _HEALTHY_SECONDS:
            self._failures = 0
        self._failures += 1
        if not self._announced or self._failures > len(_BACK_OFF):
            raise ServeError(f"the server process ended with {_how(code)}: see its message above")
        wait = _BACK_OFF[self._failures - 1]
        print(
            f"warning: server process {child.pid} ended with {_how(code)}, restarting in {wait:g} s",
            file=sys.stderr,
            flush=True,
        )
        self._restarts.append((time.monotonic() + wait, child.row))

    def _next_deadline(self) -> float | None:
        """Return seconds until the next restart or kill is due."""
        dues = [due for due, _ in self._restarts] if self._stop_by is None else [self._stop_by]
        return max(0.0, min(dues) - time.monotonic()) if dues else None

    def _restart_due(self) -> None:
        now = time.monotonic()
        for entry in [entry for entry in self._restarts if entry[0] <= now and self._stop_by is None]:
            self._restarts.remove(entry)
            self._start(entry[1])

    def _end_all(self) -> None:
        while self._children:
            pid, _ = self._children.popitem()
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"status {code}"
