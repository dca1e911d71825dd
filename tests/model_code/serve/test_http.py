"""HTTP/1.1 on real sockets: keep-alive, pipelining, chunks, half-closed peers."""

from __future__ import annotations

import http.client
import socket

import pytest

from tests.model_code.serve.running import DEADLINE, Server, read_reply, wait_for
from tests.model_code.serve.toy_bundle import photo

RED = photo("red", kind="PNG")
BLUE = photo("blue", kind="PNG")


def post(body: bytes, *headers: str, version: str = "1.1", length: int | None = None) -> bytes:
    lines = [
        f"POST /invocations HTTP/{version}",
        "Host: test",
        "Content-Type: image/png",
        f"Content-Length: {len(body) if length is None else length}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def label(connection: socket.socket) -> str:
    return str(read_reply(connection).json()["predictions"][0]["class"])


def test_one_connection_carries_many_requests(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE)
    for _ in range(5):
        connection.request("POST", "/invocations", RED, {"Content-Type": "image/png"})
        assert connection.getresponse().read().startswith(b'{"predictions"')
    connection.close()


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    with server.raw() as connection:
        connection.sendall((post(RED) + b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n" + post(BLUE)) * 5)
        for _ in range(5):
            assert label(connection) == "red"
            assert b"healthy" in read_reply(connection).body
            assert label(connection) == "blue"


def test_thousands_of_pipelined_pings(server: Server) -> None:
    with server.raw() as connection:
        connection.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n" * 3000)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while data := connection.recv(1 << 16):
            received += data
    assert received.count(b"200 OK") == 3000


def test_an_error_behind_a_good_request_waits_for_its_answer(server: Server) -> None:
    with server.raw() as connection:
        connection.sendall(post(RED) + b"nonsense\r\n\r\n")
        assert label(connection) == "red"
        assert read_reply(connection).status == 400


def test_body_that_arrives_byte_by_byte(server: Server) -> None:
    with server.raw() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in post(RED):
            connection.send(bytes([byte]))
        assert label(connection) == "red"


def test_chunked_body(server: Server) -> None:
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
    half = len(RED) // 2
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (RED[:half], RED[half:]))
    assert server.exchange(head + chunks + b"0\r\n\r\n").json()["predictions"][0]["class"] == "red"


def test_expect_100_continue(server: Server) -> None:
    with server.raw() as connection:
        connection.sendall(post(b"", "Expect: 100-continue", length=len(RED)))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(RED)
        assert label(connection) == "red"


def test_a_body_is_asked_for_after_the_answers_before_it(server: Server) -> None:
    with server.raw() as connection:
        connection.sendall(post(RED) + post(b"", "Expect: 100-continue", length=len(BLUE)))
        assert label(connection) == "red"
        file = connection.makefile("rb")
        assert [file.readline(), file.readline()] == [b"HTTP/1.1 100 Continue\r\n", b"\r\n"]
        connection.sendall(BLUE)
        assert label(connection) == "blue"


def test_trailers_are_no_headers(server: Server) -> None:
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"%x\r\n%s\r\n0\r\nContent-Type: text/html\r\n\r\n" % (len(RED), RED)
    assert server.exchange(head + body).status == 200


def test_a_client_that_closed_its_sending_side_gets_its_answer(server: Server) -> None:
    with server.raw() as connection:
        connection.sendall(post(RED))
        connection.shutdown(socket.SHUT_WR)
        assert label(connection) == "red"
        assert connection.recv(1) == b""


@pytest.mark.parametrize(("version", "header"), [("1.0", "X-None: 0"), ("1.1", "Connection: close")])
def test_connection_closes_when_the_client_wants_it(server: Server, version: str, header: str) -> None:
    with server.raw() as connection:
        connection.sendall(post(RED, header, version=version))
        reply = read_reply(connection)
        assert reply.headers["connection"] == "close"
        assert connection.recv(1) == b""


def test_an_upgrade_is_ignored(server: Server) -> None:
    reply = server.exchange(b"GET /ping HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n")
    assert (reply.status, reply.headers["connection"]) == (200, "close")


def test_unknown_path_and_wrong_method_say_what_there_is(server: Server) -> None:
    assert server.request("GET", "/predict").status == 404
    reply = server.request("GET", "/invocations")
    assert reply.status == 405
    assert reply.headers["allow"] == "POST"
    assert server.request("DELETE", "/ping").status == 405


def test_metrics_count_what_was_answered(server: Server) -> None:
    photos = server.metric("serve_photos_total")
    requests = server.metric("serve_request_seconds_count")
    server.invoke(RED)
    server.invoke(b"no photo")
    assert server.metric("serve_photos_total") == photos + 1
    assert server.metric("serve_request_seconds_count") == requests + 2
    text = server.request("GET", "/metrics").body.decode()
    assert 'runtime="onnx-int8"' in text
    assert "serve_resident_bytes" in text


def test_execution_parameters_for_batch_transform(server: Server) -> None:
    parameters = server.request("GET", "/execution-parameters").json()
    assert parameters["MaxPayloadInMB"] == 4
    assert parameters["MaxConcurrentTransforms"] >= 1


def test_access_log_is_a_json_line_per_request(server: Server) -> None:
    server.invoke(RED, "image/png", X_Amzn_SageMaker_Inference_Id="logged-1")

    def mine() -> list[dict[str, object]]:
        return [line for line in server.logged() if line.get("inference_id") == "logged-1"]

    (line,) = wait_for(mine, "the log line")
    assert line["status"] == 200
    assert line["photos"] == 1
    assert line["bytes_in"] == len(RED)
    assert line["path"] == "/invocations"
