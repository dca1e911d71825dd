"""After kill -9, acknowledged writes are there and half-written ones are not."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from local_aws.s3.store import S3Store
from tests.local_aws.s3.s3_server import running_s3

SERVER = """
import sys
from pathlib import Path
from tests.local_aws.s3.s3_server import RunningS3
server = RunningS3(Path(sys.argv[1]))
print(server.port, flush=True)
import threading
threading.Event().wait()
"""


def start(root: Path) -> tuple[subprocess.Popen[str], Any]:
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    port = int(process.stdout.readline())
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
        config=Config(retries={"max_attempts": 0}, read_timeout=5),
    )
    return process, client


def test_acknowledged_objects_survive_kill_9(tmp_path: Path) -> None:
    process, s3 = start(tmp_path)
    s3.create_bucket(Bucket="bucket")
    acknowledged: dict[str, str] = {}
    lock = threading.Lock()

    def write(worker: int) -> None:
        number = 0
        while True:
            key = f"{worker}/{number % 7}"
            body = os.urandom(20_000)
            try:
                s3.put_object(Bucket="bucket", Key=key, Body=body)
            except Exception:
                with lock:
                    acknowledged.pop(key, None)  # this very key may hold either body
                return
            with lock:
                acknowledged[key] = hashlib.md5(body).hexdigest()
            number += 1

    workers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    deadline = time.monotonic() + 20
    while len(acknowledged) < 20 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for worker in workers:
        worker.join(20)
    assert len(acknowledged) >= 16
    with running_s3(tmp_path) as server:
        again = server.client()
        for key, digest in acknowledged.items():
            body = again.get_object(Bucket="bucket", Key=key)["Body"].read()
            assert hashlib.md5(body).hexdigest() == digest
        blobs = [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
        listed = again.list_objects_v2(Bucket="bucket")["KeyCount"]
        assert len(blobs) == listed, "a killed put left its blob behind"


def test_a_newer_index_is_refused_with_the_way_out(tmp_path: Path) -> None:
    store = S3Store(tmp_path)
    store.index.write(lambda connection: connection.execute("PRAGMA user_version = 99") and None)
    store.close()
    process = subprocess.run(
        [
            sys.executable,
            "-c",
            f"from local_aws.s3.store import S3Store; S3Store(__import__('pathlib').Path({str(tmp_path)!r}))",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "upgrade local_aws" in process.stderr


def test_jobs_get_their_own_copies(tmp_path: Path) -> None:
    store = S3Store(tmp_path / "s3")
    store.buckets.create("bucket", "us-east-1")
    for key in ("data/a.txt", "data/deep/b.txt", "data/../escape", "other"):
        store.put_bytes("bucket", key, key.encode())
    folder = tmp_path / "channel"
    assert store.download_prefix("bucket", "data/", folder) == ["data/a.txt", "data/deep/b.txt"]
    (folder / "a.txt").write_text("changed by the job")
    assert store.get_bytes("bucket", "data/a.txt") == b"data/a.txt"
    assert not (tmp_path / "escape").exists()
    store.put_file("bucket", "back", folder / "a.txt")
    assert store.get_bytes("bucket", "back") == b"changed by the job"
    store.close()
