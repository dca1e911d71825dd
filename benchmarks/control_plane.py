"""`control-plane`: latency of one SageMaker control-plane call, local_aws against moto_server in the same run.

Signed requests are made once and sent again and again over one kept connection, so that the client's own work
(boto3 alone costs about 1 ms a call) is not measured: a figure is the server's time plus a loopback round
trip. local_aws keeps everything on disk and validates every request; moto_server keeps it in memory. The last
line is JSON: {"name", "figure", "unit", "limit", "peers", "ratio", "conditions"}; figure is the median of
describe_training_job.

    python -m benchmarks.control_plane [--calls 1500]
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.awsrequest import AWSPreparedRequest
from botocore.config import Config

from benchmarks.s3_rate import moto_server, running
from launcher.preflight import free_port

LIMIT_MS = 3.0
RECORDS = 200
"""Models and one ended job that both servers hold while they are measured."""

_IMAGES = """schema_version = 1
[images.any]
pattern = "*"
contracts = ["script", "server"]
interpreter = "python"
argv = ["python"]
"""


@dataclass(frozen=True)
class Latency:
    """Latency of one operation, in milliseconds."""

    median: float
    p99: float


def main() -> None:
    """Measure both, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=1500, help="calls of each operation")
    calls = parser.parse_args().calls
    found: dict[str, dict[str, Latency]] = {}
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        images = Path(folder) / "images.toml"
        images.write_text(_IMAGES)
        port = free_port()
        argv = [sys.executable, "-m", "local_aws", "start", "--foreground", "--state", f"{folder}/state"]
        argv += ["--images", str(images), "--port", str(port)]
        with running(argv, f"http://127.0.0.1:{port}") as url:
            found["local_aws"] = measure(url, calls)
        with moto_server() as url:
            found["moto_server"] = measure(url, calls)
    report(found, calls)


def measure(url: str, calls: int) -> dict[str, Latency]:
    """Measure every operation against one server."""
    client = boto3.client(
        "sagemaker",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="bench",
        aws_secret_access_key="bench",
        config=Config(retries={"max_attempts": 1}),
    )
    _fill(client)
    return {
        "describe_training_job": repeat(client, url, calls, "describe_training_job", TrainingJobName="job"),
        "describe_model": repeat(client, url, calls, "describe_model", ModelName="model-7"),
        "list_models (100)": repeat(client, url, calls // 4, "list_models", MaxResults=100),
    }


def repeat(client: Any, url: str, calls: int, operation: str, **params: Any) -> Latency:
    """Send one signed request `calls` times."""
    request = signed(client, operation, params)
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    headers = {name: _text(value) for name, value in request.headers.items()}
    times = []
    for number in range(calls + calls // 10):
        began = time.perf_counter()
        connection.request("POST", "/", request.body, headers)  # type: ignore[arg-type]
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            sys.exit(f"{operation} answered {response.status}: {body[:300]!r}")
        if number >= calls // 10:
            times.append((time.perf_counter() - began) * 1000)
    connection.close()
    times.sort()
    return Latency(statistics.median(times), times[int(len(times) * 0.99)])


def signed(client: Any, operation: str, params: dict[str, Any]) -> AWSPreparedRequest:
    """Return the request that boto3 would send, intercepted just before sending."""
    caught: list[AWSPreparedRequest] = []

    def catch(request: AWSPreparedRequest, **_: Any) -> None:
        caught.append(request)

    client.meta.events.register("before-send.sagemaker", catch)
    getattr(client, operation)(**params)
    client.meta.events.unregister("before-send.sagemaker", catch)
    return caught[0]


def _fill(client: Any) -> None:
    role = "arn:aws:iam::123456789012:role/bench"
    for number in range(RECORDS):
        container = {
            "Image": "image:1",
            "ModelDataUrl": "s3://bucket/model.tar.gz",
            "Environment": {"A": "1"},
        }
        client.create_model(ModelName=f"model-{number}", ExecutionRoleArn=role, PrimaryContainer=container)
    client.create_training_job(
        TrainingJobName="job",
        RoleArn=role,
        AlgorithmSpecification={"TrainingImage": "image:1", "TrainingInputMode": "File"},
        HyperParameters={f"name_{number}": str(number) for number in range(20)},
        OutputDataConfig={"S3OutputPath": "s3://bucket/output"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 60},
    )
    # Without a program it fails at once, which ends it: a record like any other.
    deadline = time.monotonic() + 30
    while client.describe_training_job(TrainingJobName="job")["TrainingJobStatus"] == "InProgress":
        if time.monotonic() > deadline:
            sys.exit("the job that is to be described did not end")
        time.sleep(0.05)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def report(found: dict[str, dict[str, Latency]], calls: int) -> None:
    """The table, then one line of JSON."""
    print(f"{'median / p99 in ms':<24}" + "".join(f"{name:>20}" for name in found))
    for operation in found["local_aws"]:
        cells = [f"{both[operation].median:.2f} / {both[operation].p99:.2f}" for both in found.values()]
        print(f"{operation:<24}" + "".join(f"{cell:>20}" for cell in cells))
    figure = found["local_aws"]["describe_training_job"].median
    peer = found["moto_server"]["describe_training_job"].median
    document = {
        "name": "control-plane",
        "figure": round(figure, 3),
        "unit": "ms per describe_training_job (median, loopback round trip included)",
        "limit": LIMIT_MS,
        "peers": {"moto_server": round(peer, 3)},
        "ratio": round(LIMIT_MS / figure, 2),
        "conditions": {
            "calls": calls,
            "records": RECORDS,
            "ratio": f"bar ({LIMIT_MS} ms) over figure: 1 or more meets it",
        },
    }
    print(json.dumps(document))
    sys.exit(0 if figure < LIMIT_MS else 1)


if __name__ == "__main__":
    main()
