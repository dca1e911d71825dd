"""Clients of AwsAccess: connections are kept, and the connection's own settings win."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.loaders import JSONFileLoader

from ml_pipeline.aws.clients import CONNECTIONS, AwsAccess
from ml_pipeline.aws.hook import loader
from ml_pipeline.plugin import MlPipelinePlugin


class _S3(BaseHTTPRequestHandler):
    """Answers to GetObject, as many at once as the client asks."""

    protocol_version = "HTTP/1.1"
    together: threading.Barrier
    connections: set[tuple[str, int]]

    def do_GET(self) -> None:
        self.connections.add(self.client_address)
        self.together.wait(30)
        self.send_response(200)
        self.send_header("Content-Length", "1")
        self.end_headers()
        self.wfile.write(b"x")

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


class _Server(ThreadingHTTPServer):
    request_queue_size = CONNECTIONS


def connection(monkeypatch: pytest.MonkeyPatch, url: str, extra: str = "") -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_AWS_DEFAULT",
        f'{{"conn_type": "aws", "login": "x", "password": "x", "extra": {{"endpoint_url": "{url}"{extra}}}}}',
    )
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


def test_a_client_keeps_a_connection_for_each_request_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    _S3.together, _S3.connections = threading.Barrier(CONNECTIONS), set()
    with _Server(("127.0.0.1", 0), _S3) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        connection(monkeypatch, f"http://127.0.0.1:{server.server_port}")
        s3 = AwsAccess().client("s3")
        with ThreadPoolExecutor(CONNECTIONS) as threads:
            for _ in range(3):
                list(
                    threads.map(
                        lambda _: s3.get_object(Bucket="b", Key="k")["Body"].read(), range(CONNECTIONS)
                    )
                )
        server.shutdown()
    assert len(_S3.connections) == CONNECTIONS


def test_the_settings_of_the_connection_win(monkeypatch: pytest.MonkeyPatch) -> None:
    connection(monkeypatch, "http://127.0.0.1:9", ', "config_kwargs": {"max_pool_connections": 7}')
    assert AwsAccess().client("s3").meta.config.max_pool_connections == 7


def test_service_models_are_read_once_for_all_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    connection(monkeypatch, "http://127.0.0.1:1")
    read: list[str] = []
    plain = JSONFileLoader.load_file
    monkeypatch.setattr(
        JSONFileLoader, "load_file", lambda self, path: read.append(str(path)) or plain(self, path)
    )
    loader.cache_clear()
    monkeypatch.setenv("ML_PIPELINE_PRELOAD", "1")
    MlPipelinePlugin.on_load()
    assert any("sagemaker" in path and "service-2" in path for path in read)
    read.clear()
    for _ in range(2):
        AwsAccess().client("sagemaker").meta.service_model.operation_model("DescribeTrainingJob")
    assert not [path for path in read if path.endswith("service-2")]


def test_requests_name_airflow_and_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    connection(monkeypatch, "http://127.0.0.1:1")
    named = AwsAccess().client("sagemaker").meta.config.user_agent_extra
    assert "Airflow/" in named
    assert "Caller/ml-pipeline" in named


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1", "af-south-1"])
def test_presigned_urls_are_those_that_every_bucket_takes(
    region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", '{"conn_type": "aws", "login": "x", "password": "x"}')
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    s3 = AwsAccess(region_name=region).client("s3")
    url = urlsplit(s3.generate_presigned_url("get_object", Params={"Bucket": "photos", "Key": "k"}))
    # AWS's own name for its first region has none in it.
    assert url.netloc in (f"photos.s3.{region}.amazonaws.com", "photos.s3.amazonaws.com")
    assert (url.netloc == "photos.s3.amazonaws.com") == (region == "us-east-1")
    assert parse_qs(url.query)["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]


def test_addresses_of_another_s3_keep_the_bucket_in_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    connection(monkeypatch, "http://local-aws:4566")
    s3 = AwsAccess().client("s3")
    url = urlsplit(s3.generate_presigned_url("get_object", Params={"Bucket": "photos", "Key": "k"}))
    assert (url.netloc, url.path) == ("local-aws:4566", "/photos/k")
