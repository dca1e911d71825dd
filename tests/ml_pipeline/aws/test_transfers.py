"""Objects read and written while S3 throttles, credentials expire and connections break."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from boto3.exceptions import S3UploadFailedError
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ClientError, EndpointConnectionError

from ml_pipeline.aws import transfers
from ml_pipeline.aws.transfers import AdaptiveLimit, Transfers
from tests.ml_pipeline.dataset.stores import BUCKET, bucket

URI = f"s3://{BUCKET}/photo.jpg"
BODY = b"photo" * 1000


@pytest.fixture
def s3() -> Iterator[Any]:
    with bucket() as client:
        client.put_object(Bucket=BUCKET, Key="photo.jpg", Body=BODY)
        yield client


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were waited, without waiting."""
    waited: list[float] = []
    monkeypatch.setattr(
        transfers, "time", SimpleNamespace(sleep=waited.append)
    )  # other threads go on sleeping
    return waited


def refusing(s3: Any, operation: str, answers: list[tuple[int, str] | None]) -> None:
    """Answer the next requests of an operation with errors, each as (HTTP status, code)."""

    def answer(request: Any, **_: Any) -> AWSResponse | None:
        if not answers:
            return None
        error = answers.pop(0)
        if error is None:
            raise EndpointConnectionError(endpoint_url=request.url)
        status, code = error
        body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        headers = HTTPHeaders.from_pairs([("Content-Length", str(len(body)))])
        raw = SimpleNamespace(
            stream=lambda *_, **__: iter([body]), read=lambda *_: body, release_conn=lambda: None
        )
        return AWSResponse(request.url, status, headers, raw)

    s3.meta.events.register_first(f"before-send.s3.{operation}", answer)


def test_expired_credentials_are_waited_out(s3: Any, pauses: list[float], tmp_path: Path) -> None:
    file = tmp_path / "photo.jpg"
    file.write_bytes(BODY)
    # Each try asks a presigned URL first, then `get_object`.
    refusing(s3, "GetObject", [(400, "ExpiredToken")] * 4)
    refusing(s3, "PutObject", [(400, "ExpiredToken")] * 2)
    both = Transfers(s3)
    assert both.read(URI) == BODY
    assert pauses == [0.2, 0.4]
    both.write(f"s3://{BUCKET}/copy.jpg", file)
    assert s3.get_object(Bucket=BUCKET, Key="copy.jpg")["Body"].read() == BODY
    assert pauses == [0.2, 0.4] * 2


def test_throttling_lowers_the_number_of_requests(s3: Any, pauses: list[float], tmp_path: Path) -> None:
    file = tmp_path / "photo.jpg"
    file.write_bytes(BODY)
    s3.meta.config.retries["total_max_attempts"] = 1
    refusing(s3, "PutObject", [(503, "SlowDown")] * 8)
    both = Transfers(s3)
    both.write(f"s3://{BUCKET}/copy.jpg", file)
    assert pauses
    assert both.limit.limit < both.limit.most


def test_a_refusal_is_raised_at_once(s3: Any, pauses: list[float], tmp_path: Path) -> None:
    file = tmp_path / "photo.jpg"
    file.write_bytes(BODY)
    both = Transfers(s3)
    with pytest.raises(FileNotFoundError, match="vanished"):
        both.read(f"s3://{BUCKET}/missing.jpg")
    with pytest.raises(FileNotFoundError):
        both.write(URI, tmp_path / "missing.jpg")
    with pytest.raises(S3UploadFailedError, match="NoSuchBucket"):
        both.write("s3://missing/photo.jpg", file)
    refusing(s3, "GetObject", [(403, "AccessDenied")] * 2)
    with pytest.raises(ClientError, match="AccessDenied"):
        both.read(URI)
    assert pauses == []


def test_what_does_not_pass_ends_after_a_minute(s3: Any, pauses: list[float]) -> None:
    refusing(s3, "GetObject", [(400, "ExpiredToken")] * 100)
    with pytest.raises(ClientError, match="ExpiredToken"):
        Transfers(s3).read(URI)
    assert 45 < sum(pauses) < 65


def test_the_limit_holds_and_recovers() -> None:
    limit = AdaptiveLimit(4)
    limit.throttled()
    assert limit.limit == 2
    active, most, lock = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal active, most
        for _ in range(50):
            with limit:
                with lock:
                    active += 1
                    most = max(most, active)
                with lock:
                    active -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most <= 4
    assert limit.limit == 4
