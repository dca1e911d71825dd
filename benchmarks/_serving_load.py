"""The load: wrk in a process of its own, closed loop or open loop, with photos as bodies."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import _serving_model
from benchmarks._serving import Running, Wire, post

_PATIENCE = 60.0
"""Seconds for which a server may leave one photo unanswered."""

_LUA = """
local bodies, n = {}, 0
function init(args)
  for i = 0, %(count)d - 1 do
    local file = io.open(string.format("%(folder)s/%%03d", i), "rb")
    bodies[i + 1] = wrk.format("POST", "%(path)s", {["Content-Type"] = "%(content_type)s"}, file:read("*a"))
    file:close()
  end
  math.randomseed(%(seed)d)
  n = math.random(#bodies)
end
function request()
  n = n %% #bodies + 1
  return bodies[n]
end
%(delay)s
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('{"requests": %%d, "microseconds": %%d, "errors": %%d, "p50": %%f, "p90": %%f, "p99": %%f}\\n',
    summary.requests, summary.duration, e.status + e.connect + e.read + e.write + e.timeout,
    latency:percentile(50), latency:percentile(90), latency:percentile(99)))
end
"""

# wrk is a closed loop: a connection asks again after its answer. Exponential think times on many connections, each far
# longer than an answer takes, make Poisson arrivals that hardly depend on the answers: an open loop. wrk starts a
# request's clock when it writes it, in whole milliseconds after the answer before.
_DELAY = "function delay() return math.floor(-math.log(1 - math.random()) * %f + 0.5) end"


# wrk stands for clients on other machines. Where it may, it takes precedence over the server on the cores they share:
# or its clock would count the time in which it waits for a core itself.
FIRST = ("nice", "-n", "-10") if hasattr(os, "geteuid") and os.geteuid() == 0 else ()


@dataclass(frozen=True)
class Load:
    """Result of one wrk run; latencies in milliseconds."""

    rate: float
    errors: int
    p50: float
    p90: float
    p99: float
    requests: int


def wrk() -> str:
    """The load tool, or leave with one line."""
    found = shutil.which("wrk")
    if not found:
        sys.exit(
            "wrk is missing: apt-get install wrk (a Python client would eat the cores that are being measured)"
        )
    return found


@contextmanager
def bodies(wire: Wire) -> Iterator[Path]:
    """A folder with the load's request bodies."""
    with tempfile.TemporaryDirectory(prefix="bodies-") as folder:
        for number, photo in enumerate(_serving_model.load_photos()):
            (Path(folder) / f"{number:03d}").write_bytes(wire.body(photo.read_bytes()))
        yield Path(folder)


def wait_for_an_answer(running: Running) -> None:
    """Ask for one photo until it is answered.

    :raises RuntimeError: it is not, for a minute and more.
    """
    photo = _serving_model.load_photos()[0].read_bytes()
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            post(running.port, running.wire, photo)
            return
        except OSError as error:  # an HTTP error or a time-out too
            if time.monotonic() > until:
                raise RuntimeError(f"answers no photo ({error}): {running.complaint()}") from error
            time.sleep(0.1)


def load(
    running: Running, folder: Path, connections: int, seconds: float, per_second: float | None = None
) -> Load:
    """Drive `running` for `seconds`, once it has answered a photo: what an earlier load left behind is over then.

    Args:
        running: The server.
        folder: Scratch folder for the script of wrk.
        connections: Concurrent connections.
        seconds: Length of the measurement.
        per_second: Open loop at this rate; None: closed loop, every connection asks again at once.

    Raises:
        RuntimeError: The server does not answer.
    """
    wait_for_an_answer(running)
    delay = "" if per_second is None else _DELAY % (1000 * connections / per_second)
    wire = running.wire
    script = folder / "load.lua"
    script.write_text(
        _LUA
        % {
            "count": len(list(folder.glob("[0-9]*"))),
            "folder": folder,
            "path": wire.path,
            "content_type": wire.content_type,
            "seed": connections,
            "delay": delay,
        }
    )
    command = [
        *(*FIRST, wrk(), "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "20s"),
        *("-s", str(script), f"http://127.0.0.1:{running.port}"),
    ]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"^\{.*\}$", output, re.MULTILINE)
    if not found:
        raise RuntimeError(f"wrk said nothing to read: {output[-300:]}")
    seen = json.loads(found[0])
    if not seen["requests"]:
        raise RuntimeError(
            f"answered no photo in {seconds:g} s to {connections} connections: {running.complaint()}"
        )
    return Load(
        rate=seen["requests"] / (seen["microseconds"] / 1e6),
        errors=int(seen["errors"]),
        p50=seen["p50"] / 1000,
        p90=seen["p90"] / 1000,
        p99=seen["p99"] / 1000,
        requests=int(seen["requests"]),
    )
