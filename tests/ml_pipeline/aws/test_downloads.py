"""Objects read with presigned URLs, and with `get_object` where those do not do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from ml_pipeline.aws.downloads import Downloads

BODY = b"photo" * 1000
Answer = Callable[[BaseHTTPRequestHandler, bool], None]


@contextmanager
def serving(answer: Answer) -> Iterator[tuple[Any, list[bool]]]:
    """A client of an S3 that gives `answer`, and for each request whether its URL was presigned."""
    seen: list[bool] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            seen.append("X-Amz-Signature=" in self.path)
            answer(self, seen[-1])

        def log_message(self, *_: Any) -> None:
            """Keep the output quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield (
                boto3.client(
                    "s3", "us-east-1", endpoint_url=f"http://127.0.0.1:{server.server_port}",
                    aws_access_key_id="x", aws_secret_access_key="x",
                    config=Config(signature_version="s3v4", retries={"total_max_attempts": 1}),
                ),
                seen,
            )  # fmt: skip
        finally:
            server.shutdown()


def reply(handler: BaseHTTPRequestHandler, status: int = 200, body: bytes = BODY) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def cut_off(handler: BaseHTTPRequestHandler) -> None:
    """Send half of what was announced."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(BODY)))
    handler.end_headers()
    handler.wfile.write(BODY[: len(BODY) // 2])
    handler.close_connection = True


@pytest.mark.parametrize(
    ("presigned", "again"),
    [
        (lambda handler: reply(handler), [True]),
        (lambda handler: reply(handler, 403, b"<Error><Code>AccessDenied</Code></Error>"), [False]),
        (lambda handler: reply(handler, 307, b""), [False]),
        (lambda handler: reply(handler, 503, b"<Error><Code>SlowDown</Code></Error>"), [True, False]),
        (lambda handler: cut_off(handler), [True, False]),
    ],
    ids=["served", "denied", "redirected", "throttled", "cut off"],
)
def test_get_object_reads_what_a_presigned_url_does_not_bring(
    presigned: Callable[[BaseHTTPRequestHandler], None], again: list[bool]
) -> None:
    def answer(handler: BaseHTTPRequestHandler, is_presigned: bool) -> None:
        (presigned if is_presigned else reply)(handler)

    with serving(answer) as (s3, seen):
        downloads = Downloads(s3)
        assert downloads.read("s3://b/cat/1.jpg") == BODY
        seen.clear()
        assert downloads.read("s3://b/cat/2 \N{SNOWMAN}?.jpg") == BODY
        assert seen == again


def test_throttling_is_told_although_get_object_then_reads_the_object() -> None:
    told: list[None] = []

    def answer(handler: BaseHTTPRequestHandler, is_presigned: bool) -> None:
        reply(handler, 503 if is_presigned else 200)

    with serving(answer) as (s3, _):
        assert Downloads(s3, lambda: told.append(None)).read("s3://b/1.jpg") == BODY
    assert len(told) == 1


def test_errors_are_those_of_get_object() -> None:
    missing = b"<Error><Code>NoSuchKey</Code></Error>"
    with (
        serving(lambda handler, _: reply(handler, 404, missing)) as (s3, _),
        pytest.raises(ClientError, match="NoSuchKey"),
    ):
        Downloads(s3).read("s3://b/gone.jpg")


def test_a_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda handler, _: reply(handler)) as (s3, seen):
        monkeypatch.setenv("HTTP_PROXY", s3.meta.endpoint_url)
        far = boto3.client(
            "s3",
            "us-east-1",
            endpoint_url="http://s3.example",
            aws_access_key_id="x",
            aws_secret_access_key="x",
        )
        assert Downloads(far).read("s3://b/cat/1.jpg") == BODY
        assert len(seen) == 1
