"""HTTP connections, byte by byte: what arrives in pieces, together, or not at all."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from local_aws.gateway.responses import Environ, StartResponse
from local_aws.gateway.server import THREADS, HttpServer
from local_aws.settings import Settings


def echo(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answers with the method, the path and the length of the body."""
    body = b""
    while piece := environ["wsgi.input"].read(1000):
        body += piece
    answer = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} {len(body)}".encode()
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HttpServer]:
    server = HttpServer(Settings(tmp_path, tmp_path / "images.toml", port=0))
    thread = threading.Thread(target=server.serve, args=(echo,), daemon=True)
    thread.start()
    yield server
    server.stop()
    thread.join(20)
    assert not thread.is_alive()


@contextlib.contextmanager
def connected(server: HttpServer) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        yield connection


def answers(connection: socket.socket, count: int) -> list[str]:
    """The bodies of the next answers."""
    found = []
    with connection.makefile("rb") as file:
        for _ in range(count):
            assert file.readline().startswith(b"HTTP/1.1 200")
            headers = dict(line.lower().split(b": ") for line in iter(file.readline, b"\r\n"))
            found.append(file.read(int(headers[b"content-length"])).decode())
    return found


def test_requests_that_arrive_together_are_answered_in_order(server: HttpServer) -> None:
    requests = [f"PUT /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: {n}\r\n\r\n{'x' * n}" for n in range(200)]
    with connected(server) as connection:
        connection.sendall("".join(requests).encode())
        assert answers(connection, 200) == [f"PUT /{n} {n}" for n in range(200)]


def test_a_request_may_arrive_byte_by_byte(server: HttpServer) -> None:
    with connected(server) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello":
            connection.sendall(bytes([byte]))
        assert answers(connection, 1) == ["POST /slow 5"]


def test_a_body_in_chunks_is_followed_by_the_next_request(server: HttpServer) -> None:
    chunks = "".join(f"{size:x}\r\n{'y' * size}\r\n" for size in (1, 70_000, 300, 1_100_000))
    with connected(server) as connection:
        head = "POST /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(f"{head}{chunks}0\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert answers(connection, 2) == ["POST /chunks 1170301", "GET /next 0"]


def test_a_header_without_an_end_is_refused(server: HttpServer) -> None:
    with connected(server) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: " + b"x" * 300_000)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100).startswith((b"HTTP/1.1 400", b"HTTP/1.1 413"))


def test_more_busy_connections_than_threads_all_get_their_turn(server: HttpServer) -> None:
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connected(server)) for _ in range(THREADS * 2)]
        for number in range(3):
            for connection in connections:
                connection.sendall(f"GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            for connection in connections:
                assert answers(connection, 1) == [f"GET /{number} 0"]


def test_a_client_that_leaves_in_the_middle_costs_only_its_connection(server: HttpServer) -> None:
    for _ in range(THREADS * 2):
        with connected(server) as connection:
            connection.sendall(b"PUT /half HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf")
    with connected(server) as connection:
        connection.sendall(b"GET /after HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answers(connection, 1) == ["GET /after 0"]


def test_a_server_stops_under_a_client_that_never_pauses(server: HttpServer) -> None:
    def ask(connection: socket.socket) -> None:
        with contextlib.suppress(OSError, AssertionError, ValueError):
            while True:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                answers(connection, 1)

    with connected(server) as connection:
        asking = threading.Thread(target=ask, args=(connection,), daemon=True)
        asking.start()
        server.stop()
        asking.join(20)
        assert not asking.is_alive()
