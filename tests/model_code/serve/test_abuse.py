"""Hostile requests on real sockets: a prompt 4xx with a reason, bounded memory, and a correct next answer."""

from __future__ import annotations

import base64
import json
import pickle
import select
import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from PIL import Image

from tests.model_code.serve.running import DEADLINE, FIXED, Server, read_reply, wait_for
from tests.model_code.serve.test_http import post
from tests.model_code.serve.toy_bundle import encode, photo, write_toy

RED = photo("red", kind="PNG")
BODY_LIMIT = 4 << 20


@pytest.fixture(autouse=True)
def _next_request_is_answered_right(server: Server) -> Iterator[None]:
    yield
    assert server.invoke(RED).json()["predictions"][0]["class"] == "red"
    assert server.request("GET", "/ping").status == 200


def resident(server: Server) -> int:
    (pid,) = server.children()
    with open(f"/proc/{pid}/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * 4096


def resident_peak(server: Server) -> int:
    (pid,) = server.children()
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM:"))


def refused(server: Server, body: bytes, content_type: str = "application/x-image") -> str:
    """The reason of a 4xx."""
    reply = server.invoke(body, content_type)
    assert 400 <= reply.status < 500, reply.body
    assert reply.json()["error"]["message"]
    return reply.reason


@pytest.mark.parametrize("content_type", ["image/jpeg", "application/json", "application/jsonlines"])
def test_empty_body(server: Server, content_type: str) -> None:
    assert refused(server, b"", content_type) == "empty"


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-npy",
        "application/python-pickle",
        "multipart/form-data; boundary=x",
        "x",
    ],
)
def test_the_bytes_decide_not_the_content_type(server: Server, content_type: str) -> None:
    assert refused(server, b"no photo", content_type) == "content_type"
    assert server.invoke(RED, content_type).json()["predictions"][0]["class"] == "red"
    assert refused(server, b"<svg/>", "image/svg+xml") == "photo_not_a_photo"


def test_compressed_bodies_are_not_unpacked(server: Server) -> None:
    bomb = zlib.compress(bytes(1 << 20))
    reply = server.invoke(bomb, "application/json", Content_Encoding="deflate")
    assert (reply.status, reply.reason) == (415, "content_encoding")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_truncated_photos(server: Server, kind: str) -> None:
    data = encode(Image.effect_noise((300, 300), 80).convert("RGB"), kind)
    for part in (0.2, 0.5, 0.9):
        refused(server, data[: int(len(data) * part)])


def test_corrupt_photos(server: Server) -> None:
    noise = encode(Image.effect_noise((200, 200), 80).convert("RGB"), "PNG")
    refused(server, noise[:100] + bytes(200) + noise[300:])
    refused(server, b"\xff\xd8\xff" + bytes(500))
    refused(server, b"\x89PNG\r\n\x1a\n" + bytes(500))
    refused(server, b"RIFF\x10\0\0\0WEBP" + bytes(500))
    refused(server, b"GIF89a" + b"\xff" * 500)


@pytest.mark.parametrize(
    "data",
    [b"%PDF-1.7 ...", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\0" * 64],
)
def test_things_that_are_no_photos(server: Server, data: bytes) -> None:
    assert refused(server, data) == "photo_not_a_photo"


def png_bomb(side: int, rows: int) -> bytes:
    """A PNG that claims side x side grey pixels, in a few kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = bytes(side + 1)
    data = b"".join(packer.compress(row) for _ in range(rows)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_decompression_bombs(server: Server) -> None:
    before = resident(server)
    tiff = encode(Image.new("1", (9_500, 9_500)), "TIFF", compression="group4")
    for bomb in (png_bomb(9_500, 9_500), png_bomb(60_000, 10), tiff):
        reply = server.invoke(bomb, "application/x-image")
        assert (reply.status, reply.reason) == (413, "photo_too_large")
    assert resident(server) - before < 50 << 20


def test_photos_of_the_largest_size_allowed_leave_no_memory_behind(server: Server) -> None:
    before = resident(server)
    bomb = encode(Image.new("RGBA", (4800, 4900), "blue"), "PNG", compress_level=1)
    replies: list[int] = []
    threads = [
        threading.Thread(target=lambda: replies.append(server.invoke(bomb, "image/png").status))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert replies == [200, 200]
    wait_for(lambda: resident(server) - before < 60 << 20, "memory to be given back")
    assert resident_peak(server) < 400 << 20


def test_a_progressive_bomb_of_scans(server: Server) -> None:
    base = encode(Image.effect_noise((64, 64), 50).convert("RGB"), "JPEG", progressive=True)
    start = base.rindex(b"\xff\xda")
    scan = base[start:-2]
    refused(server, base[:-2] + scan * 2000 + base[-2:])


def test_a_declared_body_of_100_mb_is_refused_at_once(server: Server) -> None:
    before = resident(server)
    reply = server.exchange(post(b"\xff\xd8\xff", length=100 << 20))
    assert (reply.status, reply.reason) == (413, "body_too_large")
    assert resident(server) - before < 20 << 20


def test_a_sent_body_of_100_mb_gets_its_answer_in_the_middle(server: Server) -> None:
    before = resident(server)
    with server.raw() as connection:
        connection.sendall(post(b"", length=100 << 20))
        block = bytes(1 << 20)
        try:
            for _ in range(100):
                connection.sendall(block)
        except OSError:
            pass  # refused and closed while we were sending
        else:
            assert read_reply(connection).status == 413
    assert resident(server) - before < 20 << 20


def test_a_chunked_body_without_end_is_cut_off(server: Server) -> None:
    before = resident(server)
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
    with server.raw() as connection:
        connection.sendall(head)
        chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
        for _ in range(6):
            connection.sendall(chunk)
        assert read_reply(connection).status == 413
    assert resident(server) - before < 30 << 20


def test_slow_heads_and_bodies_are_cut_off(server: Server) -> None:
    with server.raw() as head, server.raw() as body:
        head.sendall(b"POST /invocations HTTP/1.1\r\nHost:")
        body.sendall(post(RED[:10], length=len(RED)))
        for connection in (head, body):
            reply = read_reply(connection)
            assert (reply.status, reply.reason) == (408, "timeout")


def test_slow_clients_do_not_hold_up_others(tmp_path: Path) -> None:
    patient = ("--read-timeout", "3600", "--drain-timeout", "0.1")
    with Server(write_toy(tmp_path / "toy"), tmp_path, *FIXED, *patient) as server:
        slow = [server.raw() for _ in range(200)]
        for connection in slow:
            connection.sendall(post(RED)[:-1])
        wait_for(
            lambda: server.metric("serve_buffered_bytes") == 200 * (len(RED) - 1), "the slow to be heard"
        )
        assert server.invoke(RED).status == 200
        for connection in slow:
            connection.close()


def test_a_client_that_never_reads_its_answers_is_bounded(server: Server) -> None:
    before = resident(server)
    requests = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 1000
    most = 64 << 20
    with server.raw() as connection:
        connection.setblocking(False)
        sent = 0
        # Once both kernels' buffers are full the server has stopped reading, and this socket stays unwritable.
        while sent < most and select.select([], [connection], [], 1.0)[1]:
            sent += connection.send(requests)
        assert sent < most
        assert server.invoke(RED).status == 200
        assert resident(server) - before < 30 << 20


def test_half_closed_in_the_middle_of_a_request(server: Server) -> None:
    for data in (b"POST /invocations HT", post(RED)[:60], post(RED[:20], length=len(RED))):
        reply = server.exchange(data, half_close=True)
        assert (reply.status, reply.reason) == (400, "incomplete")


def test_clients_that_vanish(server: Server) -> None:
    for data in (b"", b"POST", post(RED)[:100], post(RED)):
        for _ in range(20):
            connection = server.raw()
            connection.sendall(data)
            # A zero linger time makes close() a reset.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
    wait_for(lambda: server.metric("serve_connections") <= 2, "the connections to be gone")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"nul",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"9" * 10_000,
        b'{"instances": 1}',
        b'{"instances": []}',
        b"{}",
        b"null",
        b"[null]",
        b"[[1, 2], [3, 4]]",
        b'{"b64": "***"}',
        b'{"b64": {"b64": {"b64": 1}}}',
        b'{"b64": ""}',
        b'{"instances": [{"b64": "AAAA"}, 7]}',
        b'{"b64": "AAAA", "parameters": {"top_k": []}}',
    ],
    ids=lambda body: body[:20].decode("latin-1"),
)
def test_malformed_json(server: Server, body: bytes) -> None:
    refused(server, body, "application/json")
    refused(server, body, "application/jsonlines")


def test_thousands_of_items(server: Server) -> None:
    item = base64.b64encode(b"x").decode()
    assert refused(server, json.dumps([item] * 20_000).encode(), "application/json") == "too_many_photos"
    assert refused(server, b"\n".join([b'"eA=="'] * 20_000), "application/jsonlines") == "too_many_photos"
    assert refused(server, json.dumps([item] * 50).encode(), "application/json") == "photo_not_a_photo"


def test_values_without_number(server: Server) -> None:
    before = resident(server)
    for body in (b"[" + b"{}," * 1_000_000 + b"{}]", b'{"b64": "", "x": [' + b"1," * 1_500_000 + b"1]}"):
        assert refused(server, body, "application/json") == "too_many_values"
        assert refused(server, body, "application/jsonlines") == "too_many_values"
    assert resident(server) - before < 10 * BODY_LIMIT


def test_base64_that_is_nearly_all_space(server: Server) -> None:
    text = "A" + " A" * (BODY_LIMIT // 2 - 100)
    assert refused(server, json.dumps([text]).encode(), "application/json") == "base64"
    assert resident_peak(server) < 400 << 20


def test_options_without_number(server: Server) -> None:
    query = "?" + "&".join(f"x{n}=1" for n in range(40))
    reply = server.invoke(RED, "image/png", query)
    assert (reply.status, reply.reason) == (400, "option")


def test_header_floods(server: Server) -> None:
    many = "".join(f"X-{n}: 1\r\n" for n in range(100))
    assert server.exchange(f"GET /ping HTTP/1.1\r\n{many}\r\n".encode()).status == 431
    big = "x" * 20_000
    assert server.exchange(f"GET /ping HTTP/1.1\r\nX: {big}\r\n\r\n".encode()).status == 431
    assert server.exchange(f"GET /{big} HTTP/1.1\r\n\r\n".encode()).status == 414
    before = resident(server)
    with server.raw() as connection:
        connection.sendall(b"GET /ping HTTP/1.1\r\nX: " + b"y" * (1 << 20))
        assert read_reply(connection).status == 431
    assert resident(server) - before < 10 << 20


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /ping\r\n\r\n",
        b"GET /ping HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST /invocations HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"CONNECT evil:80 HTTP/1.1\r\nHost: evil\r\n\r\n",
    ],
    ids=lambda data: data[:40].decode("latin-1"),
)
def test_what_is_no_http(server: Server, data: bytes) -> None:
    reply = server.exchange(data, half_close=True)
    assert 400 <= reply.status < 500 or reply.status == 505
    assert reply.json()["error"]["message"]


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (eval, ("__import__('os').abort()",))


def test_pickles_are_never_loaded(server: Server) -> None:
    pickled = pickle.dumps(_Bomb())
    encoded = base64.b64encode(pickled).decode()
    assert refused(server, pickled) == "photo_not_a_photo"
    assert refused(server, pickled, "application/x-pickle") == "content_type"
    assert refused(server, json.dumps({"b64": encoded}).encode(), "application/json") == "photo_not_a_photo"


def test_no_url_is_ever_fetched(server: Server) -> None:
    asked: list[str] = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)

    bait = HTTPServer(("127.0.0.1", 0), Listener)
    thread = threading.Thread(target=bait.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{bait.server_port}/photo.jpg"
    try:
        documents = [
            {"url": url},
            url,
            {"b64": url},
            {"instances": [{"url": url}]},
            {"image_url": url},
            {"image": {"url": url}},
        ]
        for document in documents:
            refused(server, json.dumps(document).encode(), "application/json")
        svg = f"<svg xmlns:xlink='http://www.w3.org/1999/xlink'><image xlink:href='{url}'/></svg>"
        refused(server, svg.encode())
        refused(server, url.encode())
    finally:
        bait.shutdown()
        thread.join(DEADLINE)
        bait.server_close()
    assert asked == []


def test_header_values_cannot_break_out_of_the_answer(server: Server) -> None:
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n"
    data = head + b"X-Amzn-SageMaker-Custom-Attributes: a\rSet-Cookie: b\r\n\r\n"
    assert "set-cookie" not in server.exchange(data).headers
    long = server.invoke(RED, X_Amzn_SageMaker_Custom_Attributes="x" * 5000)
    assert "x-amzn-sagemaker-custom-attributes" not in long.headers
