"""Kill local_aws at random moments under six writers and count acknowledged writes that are lost.

    python -m tests.local_aws.state.kill_points --points 1000 [--seed 1]

Each writer repeats one kind of write (objects, multipart uploads, messages, roles, log events, parameters) and notes
a write once it is answered. After each kill local_aws is started again, and everything noted must be there: the
newest writes after every kill, all of them at the end. The last line is JSON; the exit status is 1 after a loss.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from launcher.preflight import free_port
from tests.local_aws.cloud import IMAGES, Cloud, eventually

BUCKET, GROUP, STREAM, QUEUE = "kill-points", "kill-points", "stream", "kill-points"
NEWEST = 25
"""Writes of each kind that are looked up after every kill."""
PART_BYTES = 5 * 2**20
_received: set[str] = set()


@dataclass
class Writer:
    """One kind of write. `write` makes it under a name; `present` returns the names among those given that exist."""

    kind: str
    write: Callable[[Cloud, str], None]
    present: Callable[[Cloud, list[str]], set[str]]
    acknowledged: list[str] = field(default_factory=list)


ZYGOTE = """
import os, signal, sys
from pathlib import Path
from moto.moto_api._internal import mock_random
from local_aws.daemon import run
from local_aws.settings import Settings
import moto.ec2.responses, moto.iam.responses, moto.kms.models
import moto.sqs.responses, moto.ssm.responses, moto.sts.responses
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
state, images, port = sys.argv[1:]
for _ in sys.stdin:
    if os.fork() == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        mock_random.seed()  # moto draws ids: a fork that repeats the last one's numbers would overwrite its roles
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        run(Settings(Path(state), Path(images), port=int(port), cores=1))
        os._exit(0)
"""
"""Forks one local_aws after the other from a process that has imported everything: the imports take most of a start."""


class Forked(Cloud):
    """A local_aws on one port, started by forking."""

    zygote: subprocess.Popen[bytes] | None = None

    def start(self) -> Forked:
        if self.zygote is None:
            self.state.mkdir(parents=True, exist_ok=True)
            self.port = free_port()
            argv = [sys.executable, "-c", ZYGOTE, str(self.state), str(IMAGES), str(self.port)]
            log = (self.state / "zygote.log").open("wb")
            self.zygote = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=log, stderr=log)
        assert self.zygote.stdin is not None
        self.zygote.stdin.write(b"start\n")
        self.zygote.stdin.flush()
        eventually(self._answers, 120)
        return self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """End the process that forks."""
        if self.zygote is not None:
            self.zygote.kill()
            self.zygote.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/_local_aws/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def client(cloud: Cloud, service: str) -> Any:
    """A client without retries and with short time-outs: a killed server never answers."""
    config = Config(retries={"max_attempts": 0}, connect_timeout=2, read_timeout=20)
    return boto3.session.Session().client(
        service, endpoint_url=cloud.url, region_name="us-east-1", config=config,
        aws_access_key_id="any", aws_secret_access_key="any",
    )  # fmt: skip


def put_object(cloud: Cloud, name: str) -> None:
    cloud.s3.put_object(Bucket=BUCKET, Key=f"objects/{name}", Body=name.encode() * 2000)


def put_multipart(cloud: Cloud, name: str) -> None:
    s3, key = cloud.s3, f"multipart/{name}"
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    parts = []
    for number, body in ((1, b"p" * PART_BYTES), (2, name.encode())):
        done = s3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=number, Body=body)
        parts.append({"PartNumber": number, "ETag": done["ETag"]})
    s3.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})


def send_message(cloud: Cloud, name: str) -> None:
    sqs = cloud.client("sqs")
    sqs.send_message(QueueUrl=sqs.get_queue_url(QueueName=QUEUE)["QueueUrl"], MessageBody=name)


def create_role(cloud: Cloud, name: str) -> None:
    cloud.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument="{}")


def put_event(cloud: Cloud, name: str) -> None:
    event = {"timestamp": int(time.time() * 1000), "message": name}
    cloud.client("logs").put_log_events(logGroupName=GROUP, logStreamName=STREAM, logEvents=[event])


def put_parameter(cloud: Cloud, name: str) -> None:
    cloud.client("ssm").put_parameter(Name=f"/kill/{name}", Value=name, Type="String")


def objects(prefix: str) -> Callable[[Cloud, list[str]], set[str]]:
    def present(cloud: Cloud, names: list[str]) -> set[str]:
        found = set()
        for name in names:
            try:
                body = cloud.s3.get_object(Bucket=BUCKET, Key=f"{prefix}/{name}")["Body"].read()
            except cloud.s3.exceptions.NoSuchKey:
                continue
            if body == (name.encode() * 2000 if prefix == "objects" else b"p" * PART_BYTES + name.encode()):
                found.add(name)
        return found

    return present


def messages(cloud: Cloud, _names: list[str]) -> set[str]:
    """Return every message received so far; a message that was received is deleted."""
    sqs = cloud.client("sqs")
    url = sqs.get_queue_url(QueueName=QUEUE)["QueueUrl"]
    while found := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=600).get(
        "Messages"
    ):
        for message in found:
            _received.add(message["Body"])
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return _received


def roles(cloud: Cloud, _names: list[str]) -> set[str]:
    pages = cloud.client("iam").get_paginator("list_roles").paginate()
    return {role["RoleName"] for page in pages for role in page["Roles"]}


def events(cloud: Cloud, _names: list[str]) -> set[str]:
    pages = cloud.client("logs").get_paginator("filter_log_events").paginate(logGroupName=GROUP)
    return {event["message"] for page in pages for event in page["events"]}


def parameters(cloud: Cloud, names: list[str]) -> set[str]:
    found: set[str] = set()
    for start in range(0, len(names), 10):
        wanted = [f"/kill/{name}" for name in names[start : start + 10]]
        answer = cloud.client("ssm").get_parameters(Names=wanted)
        found |= {parameter["Value"] for parameter in answer["Parameters"]}
    return found


def writers() -> list[Writer]:
    return [
        Writer("object", put_object, objects("objects")),
        Writer("multipart", put_multipart, objects("multipart")),
        Writer("message", send_message, messages),
        Writer("role", create_role, roles),
        Writer("event", put_event, events),
        Writer("parameter", put_parameter, parameters),
    ]


def prepare(cloud: Cloud) -> None:
    cloud.s3.create_bucket(Bucket=BUCKET)
    cloud.client("sqs").create_queue(QueueName=QUEUE)
    cloud.client("logs").create_log_group(logGroupName=GROUP)
    cloud.client("logs").create_log_stream(logGroupName=GROUP, logStreamName=STREAM)


def round_of(cloud: Cloud, chosen: list[Writer], point: int, seconds: float) -> None:
    """Write with all writers for a while, then kill; notes acknowledged writes in them."""
    stop = threading.Event()

    def run(writer: Writer) -> None:
        number = 0
        while not stop.is_set():
            name = f"{writer.kind}-{point}-{number}"
            number += 1
            try:
                writer.write(cloud, name)
            except (BotoCoreError, ClientError, OSError, KeyError, ResponseParserError):
                continue  # not acknowledged; the last two are answers without their body
            writer.acknowledged.append(name)

    threads = [threading.Thread(target=run, args=(writer,), daemon=True) for writer in chosen]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    cloud.kill()
    stop.set()
    for thread in threads:
        thread.join(30)


def lost(cloud: Cloud, chosen: list[Writer], newest: int | None) -> list[str]:
    missing: list[str] = []
    for writer in chosen:
        names = writer.acknowledged[-newest:] if newest else writer.acknowledged
        missing += sorted(set(names) - writer.present(cloud, names)) if names else []
    return missing


def main(points: int, seed: int, folder: Path, longest: float = 0.8) -> dict[str, Any]:
    """Run; return the result."""
    rng = random.Random(seed)
    cloud = Forked(folder / "state").start()
    for service in ("s3", "sqs", "iam", "logs", "ssm"):
        cloud._clients[(service, "us-east-1")] = client(cloud, service)
    prepare(cloud)
    chosen, missing = writers(), []
    began = time.monotonic()
    done = 0
    try:
        for point in range(points):
            round_of(cloud, chosen, point, rng.uniform(0.005, longest))
            cloud.start()
            missing += lost(cloud, chosen, NEWEST)
            done += 1
            if point % 50 == 49:
                writes = sum(len(writer.acknowledged) for writer in chosen)
                print(f"{point + 1} kills, {writes} acknowledged writes, {len(missing)} lost", flush=True)
        missing += [name for name in lost(cloud, chosen, None) if name not in missing]
    finally:
        cloud.stop()
        cloud.close()
    return {
        "kills": done,
        "writers": len(chosen),
        "acknowledged": {writer.kind: len(writer.acknowledged) for writer in chosen},
        "lost": missing,
        "seed": seed,
        "seconds": round(time.monotonic() - began),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=1000, help="number of kills")
    parser.add_argument("--seed", type=int, default=1, help="seed of the moments")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        result = main(options.points, options.seed, Path(name))
    print(json.dumps(result))
    sys.exit(1 if result["lost"] else 0)
