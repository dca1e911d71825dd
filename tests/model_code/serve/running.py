"""A real server process for tests, and plain sockets to talk to it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEADLINE = 30.0
FIXED = ("--processes", "1", "--workers", "2", "--threads", "1", "--max-batch", "8")
"""Leaves nothing to measure, so a server starts at once."""


@dataclass
class Reply:
    """An HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        """The code of an error."""
        return str(self.json()["error"]["reason"])


def wait_for(condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    """The first true value of `condition`."""
    until = time.monotonic() + deadline
    while time.monotonic() < until:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError(f"{what}: not seen within {deadline} s")


class Wire(socket.socket):
    """A bare connection whose responses may be read one after another."""

    def __init__(self, port: int) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_STREAM)
        self.settimeout(DEADLINE)
        self.connect(("127.0.0.1", port))
        self._received = super().makefile("rb")

    def close(self) -> None:
        """Close, which a socket with an open file would put off."""
        self._received.close()
        super().close()

    def makefile(self, *_: Any, **__: Any) -> Any:
        """The same buffer for every response: one of its own would swallow the beginning of the next."""
        return _Kept(self._received)


class _Kept:
    """A file that its reader does not close."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def close(self) -> None:
        """Stay open."""


class Server:
    """`python -m model_code.serve` as a child process."""

    def __init__(self, model: Path, folder: Path, *arguments: str, **environment: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.errors = folder / "stderr"
        self.log = folder / "stdout"
        with self.errors.open("wb") as errors, self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "model_code.serve", str(model), "--port", "0", *arguments],
                stdout=log,
                stderr=errors,
                env={**os.environ, **environment},
            )
        self.port = 0

    def ready(self) -> Server:
        """Wait until it serves."""
        pattern = re.compile(r"^serving .* on http://.*:(\d+)$", re.MULTILINE)

        def port() -> int:
            found = pattern.search(self.errors.read_text())
            if not found and self.process.poll() is not None:
                raise AssertionError(f"the server ended: {self.errors.read_text()}")
            return int(found[1]) if found else 0

        self.port = wait_for(port, "the server to start")
        return self

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        """One request on a connection of its own; `_` in header names stands for `-`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            return _reply(connection.getresponse())
        finally:
            connection.close()

    def invoke(self, body: bytes, content_type: str = "image/jpeg", query: str = "", **headers: str) -> Reply:
        """POST /invocations."""
        return self.request("POST", f"/invocations{query}", body, Content_Type=content_type, **headers)

    def invoke_json(self, document: Any, **headers: str) -> Reply:
        """POST /invocations with a JSON body."""
        return self.invoke(json.dumps(document).encode(), "application/json", **headers)

    def raw(self) -> Wire:
        """A bare connection."""
        return Wire(self.port)

    def exchange(self, data: bytes, half_close: bool = False) -> Reply:
        """Send bytes, read one response."""
        with self.raw() as connection:
            connection.sendall(data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            return read_reply(connection)

    def metric(self, name: str) -> float:
        """Sum of a metric's samples."""
        lines = self.request("GET", "/metrics").body.decode().splitlines()
        pattern = re.compile(rf"^{re.escape(name)}(\{{.*\}})? (\S+)$")
        return sum(float(found[2]) for line in lines if (found := pattern.match(line)))

    def children(self) -> list[int]:
        """Process ids of the server processes."""
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in listed.stdout.split()]

    def logged(self) -> list[dict[str, Any]]:
        """The access log so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop it; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def __enter__(self) -> Server:
        return self.ready()

    def __exit__(self, *_: object) -> None:
        self.stop()


def read_reply(connection: socket.socket, method: str = "POST") -> Reply:
    """One response from a bare connection."""
    response = http.client.HTTPResponse(connection, method=method)
    response.begin()
    return _reply(response)


def _reply(response: http.client.HTTPResponse) -> Reply:
    return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
