"""`s3-rate`: puts and gets of 100 kB objects per second, local_aws against moto_server in the same run.

Load comes from wrk on presigned requests, so that no Python client is the bottleneck; local_aws verifies the signature
of each (--auth required), moto_server none. Both servers run on the same machine and are measured in turns. local_aws
flushes every object to disk before it answers; moto_server keeps them in memory. The last line is JSON: {"name",
"figure", "unit", "limit", "peers", "ratio", "conditions"}, where ratio is the lower of the two rates over moto_server's
and limit is the ratio to reach.

    python benchmarks/s3_rate.py [--seconds 4] [--rounds 3] [--connections 32]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from launcher.preflight import free_port
from local_aws.iam.credentials import root_key

OBJECT_BYTES = 100_000
KEYS = [f"photos/{number:04d}.jpg" for number in range(256)]
LIMIT = 2.0
BUCKET = "bench"

_LUA = """
local urls = {}
for line in io.lines("%(urls)s") do urls[#urls + 1] = line end
local body = string.rep("x", %(size)d)
local n = 0
request = function()
  n = n + 1
  return wrk.format("%(method)s", urls[(n - 1) %% #urls + 1], %(headers)s, %(body)s)
end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %%d %%d %%d %%d\\n", summary.requests, summary.duration,
    e.status + e.connect + e.read + e.write + e.timeout, latency:percentile(99)))
end
"""

_IMAGES = """schema_version = 1
[images.none]
pattern = "none"
contracts = ["server"]
interpreter = "python"
argv = ["python"]
"""


@dataclass(frozen=True)
class Rate:
    """Requests per second, failures, and the 99th percentile of latency in milliseconds."""

    per_second: float
    failures: int
    p99_ms: float


def main() -> None:
    """Measure both, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=4, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each kind; the median counts")
    parser.add_argument("--connections", type=int, default=32, help="concurrent connections of wrk")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("s3-rate needs wrk: install it (apt-get install wrk) and run again")
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        servers = {
            "local_aws": stack.enter_context(local_aws(folder)),
            "moto_server": stack.enter_context(moto_server()),
        }
        key = root_key(folder / "state")
        clients = {
            "local_aws": connect(servers["local_aws"], key.id, key.secret),
            "moto_server": connect(servers["moto_server"], "bench", "bench"),
        }
        samples: dict[tuple[str, str], list[Rate]] = {}
        for _ in range(arguments.rounds):
            # In turns: whatever else the machine does meanwhile slows both.
            for method in ("PUT", "GET"):
                for server, url in servers.items():
                    urls = [sign(clients[server], method, key) for key in KEYS]
                    rate = load(method, url, urls, folder, arguments.seconds, arguments.connections)
                    samples.setdefault((server, method.lower()), []).append(rate)
    report({key: median(rates) for key, rates in samples.items()}, arguments)


def connect(url: str, access_key: str, secret: str) -> Any:
    """A client with a bucket that holds every key."""
    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=access_key,
        aws_secret_access_key=secret,
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )
    client.create_bucket(Bucket=BUCKET)
    for key in KEYS:
        client.put_object(Bucket=BUCKET, Key=key, Body=b"x" * OBJECT_BYTES)
    return client


def sign(client: Any, method: str, key: str) -> str:
    """A presigned URL."""
    operation = {"PUT": "put_object", "GET": "get_object"}[method]
    return str(client.generate_presigned_url(operation, Params={"Bucket": BUCKET, "Key": key}))


def median(rates: list[Rate]) -> Rate:
    """The measurement in the middle, with the failures of all."""
    middle = sorted(rates, key=lambda rate: rate.per_second)[len(rates) // 2]
    return Rate(middle.per_second, sum(rate.failures for rate in rates), middle.p99_ms)


def load(method: str, url: str, urls: list[str], folder: Path, seconds: int, connections: int) -> Rate:
    """One wrk run over presigned URLs."""
    listing, script = folder / "urls", folder / "load.lua"
    listing.write_text("\n".join(signed[len(url) :] for signed in urls))
    script.write_text(
        _LUA
        % {
            "urls": listing,
            "size": OBJECT_BYTES,
            "method": method,
            "headers": '{["Content-Type"] = "image/jpeg"}' if method == "PUT" else "nil",
            "body": "body" if method == "PUT" else "nil",
        }
    )
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script), url]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+)", output)
    if found is None:
        sys.exit(f"wrk said nothing that can be read:\n{output}")
    requests, microseconds, failures, p99 = map(int, found.groups())
    return Rate((requests - failures) / (microseconds / 1e6), failures, p99 / 1000)


@contextmanager
def local_aws(folder: Path) -> Iterator[str]:
    """local_aws on a fresh state folder, on the disk of the current directory."""
    images = folder / "images.toml"
    images.write_text(_IMAGES)
    port = free_port()
    argv = [sys.executable, "-m", "local_aws", "start", "--foreground", "--state", str(folder / "state")]
    argv += ["--images", str(images), "--port", str(port), "--auth", "required"]
    with running(argv, f"http://127.0.0.1:{port}") as url:
        yield url


@contextmanager
def moto_server() -> Iterator[str]:
    """Run moto's own server as its command starts it; yield its URL."""
    port = free_port()
    argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running(argv, f"http://127.0.0.1:{port}") as url:
        yield url


@contextmanager
def running(argv: list[str], url: str) -> Iterator[str]:
    """A server process, once it answers."""
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{' '.join(argv)} does not answer on {url}")
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(url: str) -> bool:
    """Return true once a server answers HTTP and has finished starting."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return int(response.status) < 500
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


def report(rates: dict[tuple[str, str], Rate], arguments: argparse.Namespace) -> None:
    """The table, then one line of JSON."""
    for (server, method), rate in rates.items():
        line = f"{server:<12} {method} {rate.per_second:8.0f}/s  p99 {rate.p99_ms:7.1f} ms"
        print(line + (f"  {rate.failures} FAILED" if rate.failures else ""))
    methods = ("put", "get")
    ratio = min(rates["local_aws", m].per_second / rates["moto_server", m].per_second for m in methods)
    conditions = (
        f"{os.cpu_count()} cores, wrk -t1 -c{arguments.connections}, "
        f"median of {arguments.rounds} x {arguments.seconds} s, load average {os.getloadavg()[0]:.1f}"
    )
    result = {
        "name": "s3-rate",
        "figure": {method: round(rates["local_aws", method].per_second) for method in methods},
        "unit": f"objects of {OBJECT_BYTES} bytes per second",
        "limit": LIMIT,
        "peers": {
            "moto_server": {method: round(rates["moto_server", method].per_second) for method in methods}
        },
        "ratio": round(ratio, 2),
        "conditions": conditions,
    }
    print(json.dumps(result))
    sys.exit(1 if any(rate.failures for rate in rates.values()) or ratio < LIMIT else 0)


if __name__ == "__main__":
    main()
