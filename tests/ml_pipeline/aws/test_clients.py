"""Clients of AwsAccess: connections are kept, and the connection's own settings win."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ml_pipeline.aws.clients import CONNECTIONS, AwsAccess


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
