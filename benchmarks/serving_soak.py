"""`serving-soak`: start to healthy, then minutes of good and bad traffic: memory must not grow, no answer be wrong.

Good: wrk posts photos that name themselves in the inference id, and a Lua callback checks that the answer's class is
the one the predictor gives in process. Bad: everything hostile that fits on a socket, a few dozen times a second.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from benchmarks import _serving, _serving_load, _serving_model
from benchmarks._serving import Running

START_BAR, MEMORY_BAR = 2.0, 400.0
GROWTH = 0.05
"""Growth of the resident memory that is put down to noise: a part of it, from the second tenth to the last one."""

_LUA = """
local bodies, classes, n = {}, {}, 0
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init(args)
  wrong, good = 0, 0 -- global, for done() to read
  for i = 0, %(count)d - 1 do
    local file = io.open(string.format("%(folder)s/%%03d", i), "rb")
    local headers = {["Content-Type"] = "image/jpeg", ["X-Amzn-SageMaker-Inference-Id"] = tostring(i)}
    bodies[i + 1] = wrk.format("POST", "/invocations", headers, file:read("*a"))
    file:close()
  end
  local i = 0
  for line in io.lines("%(folder)s/classes") do classes[tostring(i)] = line; i = i + 1 end
end
function request()
  n = n %% #bodies + 1
  return bodies[n]
end
function response(status, headers, body)
  local expected = classes[headers["X-Amzn-SageMaker-Inference-Id"]]
  if status == 200 and expected and body:find('"class": "' .. expected .. '", "probability"', 1, true) == 19 then
    good = good + 1
  else
    wrong = wrong + 1
  end
end
function done(summary, latency, requests)
  local right, bad = 0, 0
  for _, thread in ipairs(threads) do right = right + thread:get("good"); bad = bad + thread:get("wrong") end
  local e = summary.errors
  io.write(string.format('{"good": %%d, "wrong": %%d, "errors": %%d}\\n', right, bad,
    e.connect + e.read + e.write + e.timeout))
end
"""


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--minutes", type=float, default=10)
    arguments.add_argument("--starts", type=int, default=5, help="starts of which the slowest counts")
    arguments.add_argument("--bad-per-second", type=float, default=20)
    chosen = arguments.parse_args()
    _serving_load.wrk()
    result = measure(_serving_model.bundle(), chosen)
    print(json.dumps(result))
    return 0


def measure(bundle: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """Start several times, soak once."""
    starts = []
    for _ in range(chosen.starts):
        with _serving.ours(bundle) as running:
            starts.append(running.seconds_to_healthy)
    print(f"start to healthy: {', '.join(f'{s:.2f}' for s in starts)} s (bar {START_BAR} s)", flush=True)
    seconds = chosen.minutes * 60
    with _serving.ours(bundle) as running, tempfile.TemporaryDirectory(prefix="soak-") as name:
        info = _serving.serve_info(running)
        folder = Path(name)
        write_bodies(folder, bundle, info["runtime"])
        memory, hostile = Memory(running), Hostile(running.port, chosen.bad_per_second)
        memory.start()
        hostile.start()
        traffic = good_traffic(running, folder, seconds)
        hostile.stop.set()
        hostile.join()
        memory.stop.set()
        memory.join()
        alive = running.process.poll() is None
        log = (_serving_model.CACHE / "ours.log").read_text()
    growth = memory.growth()
    peak = max(memory.samples) / 1e6
    crashes = log.count("restarting") + log.count("Traceback")
    print(
        f"good answers {traffic['good']}, wrong answers {traffic['wrong']}, connection errors {traffic['errors']}"
    )
    print(f"hostile requests {hostile.sent}, badly answered {len(hostile.bad)}: {hostile.bad[:3]}")
    print(
        f"memory of the largest process: peak {peak:.0f} MB (bar {MEMORY_BAR:.0f} MB), growth {growth:+.1%}"
    )
    fine = (
        alive
        and not (traffic["wrong"] or traffic["errors"] or hostile.bad or crashes)
        and growth <= GROWTH
        and max(starts) < START_BAR
        and peak < MEMORY_BAR
    )
    return {
        "name": "serving-soak",
        "figure": round(peak, 1),
        "unit": "MB resident at most, per process",
        "limit": MEMORY_BAR,
        "peers": {},
        "ratio": round(peak / MEMORY_BAR, 3),
        "conditions": _serving.conditions(
            ratio="peak memory over its bar; 1 or less meets it",
            met=fine,
            minutes=chosen.minutes,
            start_seconds=round(max(starts), 2),
            start_bar=START_BAR,
            growth=round(growth, 4),
            good=traffic["good"],
            wrong=traffic["wrong"],
            connection_errors=traffic["errors"],
            hostile=hostile.sent,
            hostile_badly_answered=len(hostile.bad),
            crashes=crashes,
            runtime=info["runtime"],
        ),
    }


def write_bodies(folder: Path, bundle: Path, runtime: str) -> None:
    """The load's photos, and the class that the predictor gives each in process."""
    from model_code.predict.predictor import Predictor

    photos = [path.read_bytes() for path in _serving_model.load_photos()]
    for number, photo in enumerate(photos):
        (folder / f"{number:03d}").write_bytes(photo)
    predictor = Predictor.open(bundle, runtime=runtime, threads=1)
    names = [predictor.classes[best] for best in predictor.predict(photos).argmax(axis=1)]
    (folder / "classes").write_text("\n".join(names) + "\n")


def good_traffic(running: Running, folder: Path, seconds: float) -> dict[str, int]:
    """Drive a few closed-loop connections with wrk and check every answer."""
    script = folder / "soak.lua"
    script.write_text(_LUA % {"count": len(list(folder.glob("[0-9]*"))), "folder": folder})
    command = [
        _serving_load.wrk(),
        "-t1",
        "-c4",
        f"-d{round(seconds)}s",
        "--timeout",
        "30s",
        "-s",
        str(script),
    ]
    output = subprocess.run(
        [*command, f"http://127.0.0.1:{running.port}"], capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, int] = json.loads(next(line for line in output.splitlines() if line.startswith("{")))
    return found


class Memory(threading.Thread):
    """Samples the resident memory of the largest server process, in bytes, once a second."""

    def __init__(self, running: Running) -> None:
        super().__init__(daemon=True)
        self._running = running
        self.samples: list[int] = []
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.wait(1.0):
            self.samples.append(max(process.memory_info().rss for process in self._running.processes()))

    def growth(self) -> float:
        """From the median of the second tenth of the time to that of the last tenth, as a part of the first."""
        tenth = max(1, len(self.samples) // 10)
        early = statistics.median(self.samples[tenth : 2 * tenth] or self.samples)
        return statistics.median(self.samples[-tenth:]) / early - 1


class Hostile(threading.Thread):
    """Sends bad requests one after another and notes every answer that is no 4xx (or 505)."""

    def __init__(self, port: int, per_second: float) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._gap = 1 / per_second
        self._draw = random.Random(7)
        self.sent = 0
        self.bad: list[str] = []
        self.stop = threading.Event()

    def run(self) -> None:
        requests = hostile_requests(self._draw)
        while not self.stop.wait(self._gap):
            name, data = self._draw.choice(requests)
            self.sent += 1
            try:
                status = self._exchange(data)
            except OSError as error:
                self.bad.append(f"{name}: {error}")
                continue
            if not (400 <= status < 500 or status == 505):
                self.bad.append(f"{name}: {status}")

    def _exchange(self, data: bytes) -> int:
        with socket.create_connection(("127.0.0.1", self._port), timeout=30) as connection:
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # refused in the middle: the answer is there to be read
            line = connection.makefile("rb").readline()
            return int(line.split()[1]) if line.startswith(b"HTTP/1.1 ") else 0


def hostile_requests(draw: random.Random) -> list[tuple[str, bytes]]:
    """Bad requests by name."""
    photo = _serving_model.load_photos()[0].read_bytes()
    corrupt = bytearray(photo)
    for _ in range(2000):
        corrupt[draw.randrange(2, len(corrupt))] = draw.randrange(256)
    items = json.dumps(["eA=="] * 5000).encode()
    claims = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + b"\0\1\0\0" * 2 + b"\x08\0\0\0\0" + b"\0\0\0\0"
    return [
        ("empty", _post(b"")),
        ("truncated", _post(photo[: len(photo) // 3])),
        ("corrupt", _post(bytes(corrupt[:200]))),
        ("text as a photo", _post(b"hello")),
        ("wrong type", _post(photo, "text/html")),
        ("bomb", _post(claims, "image/png")),
        ("half a json", _post(b'{"instances": [', "application/json")),
        ("deep json", _post(b"[" * 50_000, "application/json")),
        ("thousands of items", _post(items, "application/json")),
        ("url", _post(b'{"url": "http://127.0.0.1:9/"}', "application/json")),
        ("pickle", _post(b"\x80\x04\x95" + bytes(100))),
        ("pickle in base64", _post(json.dumps({"b64": base64.b64encode(b"\x80\x04\x95" * 9).decode()}).encode(),
                                   "application/json")),
        ("100 MB", _post(b"x" * 1000, length=100 << 20)),
        ("5 MB of nothing", _post(bytes(5 << 20))),
        ("half a request", b"POST /invocations HTTP/1.1\r\nContent-Length: 100\r\n\r\nabc"),
        ("headers", b"GET /ping HTTP/1.1\r\n" + b"X-A: b\r\n" * 500 + b"\r\n"),
        ("long header", b"GET /ping HTTP/1.1\r\nX: " + b"y" * 100_000 + b"\r\n\r\n"),
        ("tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        ("unknown path", b"GET /secret HTTP/1.1\r\nHost: x\r\n\r\n"),
    ]  # fmt: skip


def _post(body: bytes, content_type: str = "image/jpeg", length: int | None = None) -> bytes:
    head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\n"
    return f"{head}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


if __name__ == "__main__":
    sys.exit(main())
