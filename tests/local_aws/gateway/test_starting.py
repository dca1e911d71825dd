"""Answers while local_aws starts: to its own calls only."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pickle
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from local_aws.context import Context
from local_aws.execution import images
from local_aws.execution.capacity import Capacity
from local_aws.gateway.router import Router
from local_aws.gateway.server import HttpServer
from local_aws.moto_bridge import state as moto_state
from local_aws.s3.app import S3App
from local_aws.s3.store import S3Store
from local_aws.sagemaker.jobs.machines import free_port
from local_aws.sagemaker.operations import status_member
from local_aws.settings import Settings
from local_aws.state import folder as state_folder
from local_aws.state.logs import LogStore
from local_aws.state.resources import Store
from tests.local_aws.cloud import IMAGES, Cloud, eventually, training_request

Start = Callable[..., Cloud]


@contextmanager
def starting(cloud: Cloud) -> Iterator[None]:
    """Start it, and keep it from loading its state until the block ends."""
    header = {"schema_version": moto_state.SCHEMA_VERSION, "moto": importlib.metadata.version("moto")}
    fifo = cloud.state / "moto" / "a.pickle"  # who loads it waits for who writes it
    os.mkfifo(fifo)

    def writer() -> int | None:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return None

    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(cloud.start)
        try:
            yield
        finally:
            with os.fdopen(eventually(writer), "wb") as file:
                file.write(json.dumps(header).encode() + b"\n" + pickle.dumps([]))
            fifo.unlink()
            started.result()


def status_of(url: str) -> int | None:
    """Of a GET; None while nothing listens."""
    try:
        with urllib.request.urlopen(url) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def test_requests_wait_until_state_is_loaded(own_cloud: Start) -> None:
    cloud = own_cloud("--port", str(free_port()))
    url, bucket = cloud.url, cloud.bucket()
    code = cloud.put_code(bucket, train="pass")
    iam, sagemaker = cloud.client("iam"), cloud.sagemaker
    iam.create_role(RoleName="kept", AssumeRolePolicyDocument="{}")
    cloud.kill()
    patient = boto3.client(
        "iam",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="credentials",
        config=Config(retries={"max_attempts": 10, "mode": "standard"}),
    )
    with ThreadPoolExecutor(1) as pool:
        with starting(cloud):
            assert eventually(lambda: status_of(f"{url}/_local_aws/health")) == 503
            with pytest.raises(ClientError) as refused:
                iam.create_role(RoleName="early", AssumeRolePolicyDocument="{}")
            answer: Any = refused.value.response["ResponseMetadata"]
            assert (answer["HTTPStatusCode"], answer["HTTPHeaders"]["retry-after"]) == (503, "1")
            with pytest.raises(ClientError) as refused:
                sagemaker.create_training_job(**training_request("early", bucket, code))
            assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
            late = pool.submit(patient.create_role, RoleName="late", AssumeRolePolicyDocument="{}")
        late.result(30)
    assert status_of(f"{url}/_local_aws/health") == 200
    assert {role["RoleName"] for role in cloud.client("iam").list_roles()["Roles"]} == {"kept", "late"}
    assert cloud.sagemaker.list_training_jobs()["TrainingJobSummaries"] == []


def test_its_files_are_its_own_as_soon_as_it_starts(own_cloud: Start) -> None:
    cloud = own_cloud()
    cloud.kill()
    left = state_folder.read_number(cloud.state / state_folder.PID)
    with starting(cloud):
        eventually(lambda: state_folder.read_number(cloud.state / state_folder.PID) not in (None, left))
        pid = state_folder.read_number(cloud.state / state_folder.PID)
        assert pid is not None
        assert "local_aws" in psutil.Process(pid).cmdline()
        assert not (cloud.state / state_folder.PORT).exists()
        assert not (cloud.state / state_folder.URL).exists()
    assert state_folder.read_number(cloud.state / state_folder.PID) == pid


def test_no_other_user_of_the_machine_reads_its_state(own_cloud: Start) -> None:
    cloud = own_cloud("--auth", "required")
    files = [path for path in cloud.state.rglob("*") if not path.is_symlink()]
    assert {path.name for path in files} >= {
        "credentials",
        "local_aws.log",
        "lock",
        "metadata.sqlite",
        "token",
        "s3",
    }
    assert [path for path in (cloud.state, *files) if path.stat().st_mode & 0o077] == []


def test_services_reach_each_other_while_they_start(tmp_path: Path) -> None:
    settings = Settings(tmp_path, IMAGES, port=0)
    store, logs = Store(tmp_path / "metadata.sqlite", status_member), LogStore(tmp_path / "logs.sqlite")
    server = HttpServer(settings)
    url = f"http://127.0.0.1:{server.port}"
    context = Context(settings, url, store, images.load(IMAGES), Capacity(1), logs)
    statuses: list[int | None] = []

    class Recovering:
        def start(self) -> None:
            context.client("s3").create_bucket(Bucket="of-its-own")
            statuses.append(status_of(f"{url}/of-its-own"))

        def __call__(self, *_: Any) -> list[bytes]:
            return []

    router = Router("us-east-1", own=context.mark)
    s3 = S3App(S3Store(tmp_path / "s3"))
    router.register("s3", s3)
    router.register("recovering", Recovering())  # type: ignore[arg-type]
    thread = threading.Thread(target=server.serve, args=(router,), daemon=True)
    thread.start()
    try:
        router.start()
        statuses.append(status_of(f"{url}/of-its-own"))
    finally:
        server.stop()
        thread.join(10)
        s3.stop()
        store.close()
        logs.close()
    assert statuses == [503, 200]
