"""A real HTTP server with nothing but S3 behind it, for the tests of S3."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from local_aws.gateway.server import HttpServer
from local_aws.s3.app import S3App
from local_aws.s3.notifications import Send
from local_aws.s3.store import S3Store
from local_aws.settings import Settings


class RunningS3:
    """A served store; `client()` speaks to it over HTTP."""

    def __init__(self, root: Path, send: Send | None = None) -> None:
        self.store = S3Store(root)
        self.app = S3App(self.store, send)
        self._server = HttpServer(Settings(root, root / "no-images.toml", port=0))
        self.port = self._server.port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve, args=(self.app,), daemon=True)
        self._thread.start()
        self.app.start()

    def stop(self) -> None:
        self._server.stop()
        self._thread.join(10)
        self.app.stop()

    def client(self, url: str | None = None, **settings: Any) -> Any:
        return boto3.session.Session().client(
            "s3",
            endpoint_url=url or self.url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"max_attempts": 1}, **settings),
        )


@contextmanager
def running_s3(root: Path, send: Send | None = None) -> Iterator[RunningS3]:
    server = RunningS3(root, send)
    try:
        yield server
    finally:
        server.stop()
