"""Downloads end: whole, or with a reason, and never with half a file."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from model_code.data.download import Checksum, DownloadError, download
from tests.web_server import sends, web_server

BODY = b"weights " * 100_000


@pytest.fixture
def stuck() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_a_whole_file_with_progress_and_checksum(tmp_path: Path) -> None:
    said: list[tuple[int, int]] = []
    sha256 = hashlib.sha256(BODY).hexdigest()
    with web_server({"/w": sends(BODY)}) as address:
        found = download(
            f"{address}/w",
            tmp_path / "sub" / "w",
            checksum=Checksum("sha256", sha256[:8]),
            progress=lambda done, total: said.append((done, total)),
        )
    assert found == sha256
    assert (tmp_path / "sub" / "w").read_bytes() == BODY
    assert said[-1] == (len(BODY), len(BODY))
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["w"]


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("/none", {}, "404"),
        ("/short", {}, "cut off"),
        ("/w", {"checksum": Checksum("md5", "00ff")}, "md5 checksum .*expected 00ff"),
        ("/w", {"max_bytes": 1000}, "larger than"),
    ],
)
def test_failures_say_why_and_leave_nothing(
    tmp_path: Path, path: str, options: dict[str, Any], message: str
) -> None:
    with (
        web_server({"/w": sends(BODY), "/short": sends(b"x" * 1000, claimed=5000)}) as address,
        pytest.raises(DownloadError, match=message),
    ):
        download(f"{address}{path}", tmp_path / "w", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_silent_server_is_given_up(tmp_path: Path, stuck: threading.Event) -> None:
    def silent(request: BaseHTTPRequestHandler) -> None:
        stuck.wait(20)

    with web_server({"/w": silent}) as address:
        with pytest.raises(DownloadError, match="time-out"):
            download(f"{address}/w", tmp_path / "w", stall_seconds=0.2)
        stuck.set()
    assert list(tmp_path.iterdir()) == []


def test_a_dripping_server_is_given_up(tmp_path: Path, stuck: threading.Event) -> None:
    def dripping(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while not stuck.wait(0.01):
            try:
                request.wfile.write(b"x" * 300_000)
            except OSError:
                return

    with web_server({"/w": dripping}) as address, pytest.raises(DownloadError, match="did not arrive"):
        download(f"{address}/w", tmp_path / "w", total_seconds=0.3)


def test_connection_refused(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DownloadError, match="cannot be reached"):
        download(f"http://127.0.0.1:{port}/w", tmp_path / "w")


@pytest.mark.parametrize("text", ["crc:12", "sha256:", "sha256:xyz", "7ebf99e0"])
def test_checksums_are_written_with_their_kind(text: str) -> None:
    with pytest.raises(ValueError, match="sha256:<hex>"):
        Checksum.parse(text)
