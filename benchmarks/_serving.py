"""The servers that are measured: ours and its peers, each started as its users start it."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks import _serving_model
from benchmarks.peers import environment
from launcher.preflight import free_port

REPOSITORY = Path(__file__).resolve().parent.parent
CORES = len(os.sched_getaffinity(0))
_START_SECONDS = 180.0


@dataclass(frozen=True)
class Running:
    """A started server."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    wire: Wire
    seconds_to_healthy: float

    def complaint(self) -> str:
        """The last line that it wrote to standard output or error, and where the others are."""
        return _last_line(_log_of(self.name)) or f"it wrote nothing to {_log_of(self.name)}"

    def cpu_seconds(self) -> float:
        """User and system time of all its processes so far."""
        return sum(_cpu(process) for process in self.processes())

    def processes(self) -> list[psutil.Process]:
        """Its process tree."""
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]


@dataclass(frozen=True)
class Wire:
    """The request format of a server: path, content type, and the body made from a photo."""

    path: str
    content_type: str
    body: Callable[[bytes], bytes]


_BOUNDARY = "benchmark-photo"
RAW = Wire("/invocations", "image/jpeg", lambda photo: photo)
RAY = Wire("/predict", "image/jpeg", lambda photo: photo)
LITSERVE = Wire(
    "/predict",
    "application/json",
    lambda photo: json.dumps({"image_data": base64.b64encode(photo).decode()}).encode(),
)
MULTIPART = Wire(
    "/predict",
    f"multipart/form-data; boundary={_BOUNDARY}",
    lambda photo: b"".join(
        (
            f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="photo.jpg"\r\n'
            "Content-Type: image/jpeg\r\n\r\n".encode(),
            photo,
            f"\r\n--{_BOUNDARY}--\r\n".encode(),
        )
    ),
)


@dataclass(frozen=True)
class Peer:
    """A server to compare with; `eager` ones run torch."""

    name: str
    module: str
    package: str
    wire: Wire
    eager: bool = True


PEERS = (
    Peer("litserve-torch", "litserve_torch", "litserve", LITSERVE),
    Peer("rayserve-torch", "rayserve_torch", "ray", RAY),
    Peer("fastapi-torch", "fastapi_torch", "fastapi", MULTIPART),
    Peer("litserve-onnx-int8", "litserve_onnx", "litserve", LITSERVE, eager=False),
    Peer("granian-onnx-int8", "granian_onnx", "granian", RAW, eager=False),
)


@contextmanager
def ours(bundle: Path, *arguments: str) -> Iterator[Running]:
    """Our server, as a user starts it; the access log goes to a file."""
    port = free_port()
    log = _serving_model.CACHE / "access.log"
    command = [
        *(sys.executable, "-m", "model_code.serve", str(bundle), "--port", str(port)),
        *("--access-log", str(log), *arguments),
    ]
    log.unlink(missing_ok=True)
    with _started("ours", command, port, RAW, "/ping") as running:
        yield running
    log.unlink(missing_ok=True)


@contextmanager
def peer(chosen: Peer, bundle: Path) -> Iterator[Running]:
    """A peer.

    Raises:
        RuntimeError: it cannot be installed or does not come up.
    """
    reason = environment.install(chosen.package)
    if reason:
        raise RuntimeError(f"cannot be installed: {reason}")
    port = free_port()
    command = [str(environment.python()), "-m", f"benchmarks.peers.{chosen.module}", str(port)]
    with _started(chosen.name, command, port, chosen.wire, None, bundle) as running:
        yield running


@contextmanager
def _started(
    name: str, command: list[str], port: int, wire: Wire, health: str | None, bundle: Path | None = None
) -> Iterator[Running]:
    environ = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "BENCH_WEIGHTS": str(_serving_model.WEIGHTS),
        "BENCH_BUNDLE": str(bundle or ""),
        "BENCH_RUNTIME": "onnx-int8",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    errors = _log_of(name)
    began = time.monotonic()
    with errors.open("wb") as log:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environ, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait_until_healthy(process, port, wire, health, errors)
        yield Running(name, process, port, wire, time.monotonic() - began)
    finally:
        _stop(process)


def _wait_until_healthy(
    process: subprocess.Popen[bytes], port: int, wire: Wire, health: str | None, errors: Path
) -> None:
    photo = _serving_model.load_photos()[0].read_bytes()
    until = time.monotonic() + _START_SECONDS
    last: Exception | None = None
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            if health:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{health}", timeout=5).read()
            else:
                post(port, wire, photo)
            return
        except OSError as error:  # an HTTP error too: Ray's proxy says 404 until the deployment is up
            last = error
            time.sleep(0.02)
    raise RuntimeError(f"does not come up: {_last_line(errors) or last}")


def _log_of(name: str) -> Path:
    return _serving_model.CACHE / f"{name}.log"


def _last_line(log: Path) -> str:
    return (log.read_text(errors="replace").strip().splitlines() or [""])[-1][:200]


def post(port: int, wire: Wire, photo: bytes) -> Any:
    """One photo's answer."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{wire.path}", wire.body(photo), {"Content-Type": wire.content_type}
    )
    return json.loads(urllib.request.urlopen(request, timeout=30).read())


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and every process it started, by their ids."""
    try:
        tree = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        tree = []
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for left in tree:
        if left.is_running():
            left.kill()
    psutil.wait_procs(tree, timeout=10)


def serve_info(running: Running) -> dict[str, str]:
    """The labels of `serve_info`: what our server chose at start."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{running.port}/metrics", timeout=10).read().decode()
    line = next(line for line in text.splitlines() if line.startswith("serve_info{"))
    return dict(re.findall(r'(\w+)="([^"]*)"', line))


class InProcess:
    """The same work without a server, in a process of its own that rests between measurements."""

    def __init__(self, bundle: Path, info: dict[str, str]) -> None:
        """Take runtime, workers, threads and batch size from `serve_info` of the server to compare with."""
        workers = int(info["processes"]) * int(info["workers"])
        command = [
            *(sys.executable, "-m", "benchmarks._serving_in_process", str(bundle), info["runtime"]),
            *(str(workers), info["threads"], info["max_batch"]),
        ]
        self._process = subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def alone(self) -> list[float]:
        """Milliseconds of single photos, one after another."""
        return self._ask("alone")

    def busy(self) -> dict[str, float]:
        """`cpu_ms`: CPU time per photo with all workers busy; `per_second`: their rate."""
        return self._ask("busy")

    def _ask(self, what: str) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


def conditions(**more: Any) -> dict[str, Any]:
    """Return the conditions that a figure depends on."""
    return {
        "cores": CORES,
        "model": _serving_model.ARCHITECTURE,
        "photos": "stanford-dogs, 224 px JPEG",
        "load": "wrk, second process, same machine",
        **more,
    }


def _cpu(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)
