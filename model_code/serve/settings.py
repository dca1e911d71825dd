"""Settings of the server, checked once, filled from arguments and SageMaker's environment."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path

from model_code.bundle.card import RUNTIME_FILES
from model_code.serve.http.limits import MIB, Limits, SettingsError

MOST_PROCESSES = 64
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Refusals(StrEnum):
    """Form of the answer to a photo that cannot be read."""

    STATUS = "status"
    ROW = "row"


@dataclass(frozen=True)
class Settings:
    """Settings of the server. `None` means: measure at start and choose."""

    model: Path
    host: str = "127.0.0.1"
    port: int = 8080
    runtime: str | None = None
    processes: int | None = None
    workers: int | None = None
    threads: int | None = None
    max_batch: int | None = None
    queue: int | None = None
    top_k: int = 5
    explain: bool = False
    refusals: Refusals = Refusals.STATUS
    access_log: str = "-"
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise SettingsError(f"port must be in 0..65535, not {self.port}")
        if (self.processes or 1) > MOST_PROCESSES:
            raise SettingsError(f"processes must be at most {MOST_PROCESSES}, not {self.processes}")
        for name in ("processes", "workers", "threads", "max_batch", "queue", "top_k"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"{name} must be at least 1, not {value}")


def parser(environment: Mapping[str, str] = os.environ) -> argparse.ArgumentParser:
    """Return the parser of the command line; SageMaker's environment variables fill the defaults."""
    parsed = argparse.ArgumentParser(
        prog="python -m model_code.serve",
        description="Serve a model bundle over HTTP: GET /ping, POST /invocations, GET /metrics.",
        epilog="Example: python -m model_code.serve model.tar.gz --port 8080, then "
        "curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8080/invocations",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    limits = Limits()
    body_mb = environment.get("SAGEMAKER_MAX_PAYLOAD_IN_MB", "")
    parsed.add_argument(
        "model", type=Path, metavar="MODEL_DIR", help="the unpacked bundle, or a model.tar.gz"
    )
    parsed.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 in a container")
    parsed.add_argument(
        "--port",
        type=int,
        default=environment.get("SAGEMAKER_BIND_TO_PORT") or 8080,
        help="0 picks a free port and prints it (environment: SAGEMAKER_BIND_TO_PORT)",
    )
    parsed.add_argument(
        "--runtime", choices=tuple(RUNTIME_FILES), help="first runtime to try instead of the bundle's best"
    )
    measured = "instead of the number measured at start"
    parsed.add_argument("--processes", type=int, help=f"server processes {measured}")
    parsed.add_argument(
        "--workers", type=int, help=f"photos (or batches) that one process handles at a time {measured}"
    )
    parsed.add_argument("--threads", type=int, help=f"threads that share the work on one batch {measured}")
    parsed.add_argument("--max-batch", type=int, help=f"most photos in one run of the network {measured}")
    parsed.add_argument(
        "--queue", type=int, help="photos that may wait in one process; then 503 (default: 2 s of work)"
    )
    parsed.add_argument(
        "--top-k", type=int, default=5, help="classes in an answer unless the request says otherwise"
    )
    parsed.add_argument(
        "--explain",
        action="store_true",
        default=environment.get("SERVE_EXPLAIN", "").lower() in ("1", "true", "yes"),
        help="answer requests for class-activation heat maps (environment: SERVE_EXPLAIN=true)",
    )
    parsed.add_argument(
        "--refusals",
        type=Refusals,
        choices=tuple(Refusals),
        default=environment.get("SERVE_REFUSALS") or Refusals.STATUS,
        help="answer to a photo that cannot be read: a 4xx status, or a 200 whose row holds the reason, so that a "
        "batch transform goes on (environment: SERVE_REFUSALS)",
    )
    parsed.add_argument(
        "--access-log", default="-", metavar="FILE", help="JSON lines: a file, - for stdout, or off"
    )
    parsed.add_argument(
        "--max-body-mb",
        type=int,
        default=int(body_mb) if body_mb.isdigit() and int(body_mb) > 0 else limits.body // MIB,
        help="largest request (environment: SAGEMAKER_MAX_PAYLOAD_IN_MB)",
    )
    parsed.add_argument("--max-photos", type=int, default=limits.photos, help="most photos in one request")
    parsed.add_argument(
        "--max-megapixels",
        type=float,
        default=limits.pixels / 1e6,
        help="largest photo; the default is the limit of training and evaluation",
    )
    parsed.add_argument(
        "--read-timeout", type=float, default=limits.body_timeout, help="seconds for a request to arrive"
    )
    parsed.add_argument(
        "--idle-timeout", type=float, default=limits.idle_timeout, help="seconds a connection may be idle"
    )
    parsed.add_argument(
        "--drain-timeout",
        type=float,
        default=limits.drain_timeout,
        help="seconds to finish requests after SIGTERM",
    )
    parsed.add_argument(
        "--hang-timeout",
        type=float,
        default=limits.hang_timeout,
        help="seconds of work on one batch after which /ping says 503",
    )
    return parsed


def from_arguments(arguments: Sequence[str] | None = None) -> Settings:
    """Settings of a command line.

    Raises:
        SettingsError: a value is out of range.
        SystemExit: the arguments are malformed, or --help was asked for.
    """
    given = parser().parse_args(arguments)
    body = given.max_body_mb * MIB
    limits = Limits(
        body=body,
        buffered=max(Limits.buffered, 2 * body),
        photos=given.max_photos,
        pixels=int(given.max_megapixels * 1e6),
        head_timeout=min(Limits.head_timeout, given.read_timeout),
        body_timeout=given.read_timeout,
        idle_timeout=given.idle_timeout,
        drain_timeout=given.drain_timeout,
        hang_timeout=given.hang_timeout,
    )
    named = {each.name: getattr(given, each.name) for each in fields(Settings) if each.name != "limits"}
    return Settings(**named, limits=limits)
