"""Bodies in chunks: aws-chunked inside chunked transfer, malformed framing, and `stop` while one hangs."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.local_aws.cloud import Cloud, eventually
from tests.local_aws.s3.s3_server import RunningS3, running_s3

INNER = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc64nvme:M3eFcAZSQlc=\r\n\r\n"
AWS_CHUNKED = (
    "content-encoding: aws-chunked\r\nx-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER\r\n"
    "x-amz-decoded-content-length: 5\r\nx-amz-trailer: x-amz-checksum-crc64nvme\r\n"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningS3]:
    with running_s3(tmp_path_factory.mktemp("chunked") / "s3") as running:
        running.client().create_bucket(Bucket="chunky")
        yield running


def send(server: RunningS3, key: str, *pieces: bytes, headers: str = AWS_CHUNKED) -> bytes:
    """PUT an object in chunked transfer, then list buckets on the same connection; all that comes back."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock:
        head = f"PUT /chunky/{key} HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n{headers}\r\n"
        sock.sendall(head.encode())
        for piece in pieces:
            sock.sendall(piece)
        sock.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        received = b""
        while data := sock.recv(65536):
            received += data
        return received


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@pytest.mark.parametrize(
    "pieces",
    [
        (chunk(INNER), b"0\r\n\r\n"),
        (chunk(INNER) + b"0\r\n\r\n",),
        (*[chunk(INNER[i : i + 1]) for i in range(len(INNER))], b"0\r\n\r\n"),
        (chunk(INNER[:4]), chunk(INNER[4:12]), chunk(INNER[12:]), b"0\r\nTrailer: x\r\n\r\n"),
    ],
    ids=["two sends", "one send", "single bytes", "split, with a trailer"],
)
def test_aws_chunked_inside_chunked(server: RunningS3, pieces: tuple[bytes, ...]) -> None:
    answer = send(server, "key", *pieces)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"ListAllMyBucketsResult" in answer
    assert server.client().get_object(Bucket="chunky", Key="key")["Body"].read() == b"hello"


@pytest.mark.parametrize(
    "broken",
    [b"zz\r\nhello\r\n", b"-5\r\nhello\r\n", b"5\r\nhelloXX", b"ffffffffffffffffffff\r\n", b"\r\n\r\n",
     b"5" * 9000, b"0x5\r\nhello\r\n"],
)  # fmt: skip
def test_broken_framing_is_an_error_and_ends_the_connection(server: RunningS3, broken: bytes) -> None:
    answer = send(server, "broken", broken, headers="")
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"IncompleteBody" in answer
    assert b"ListAllMyBucketsResult" not in answer


@pytest.mark.parametrize(
    "inner",
    [
        b"-1\r\n\r\n",
        b"5\r\nhell",
        b"5\r\nhelloworld\r\n0\r\n\r\n",
        b"3\r\nabc\r\n0\r\n\r\n",
        b"",
        b"5;" + b"x" * 9000,
    ],
)
def test_a_broken_inner_framing_is_an_error(server: RunningS3, inner: bytes) -> None:
    body = (chunk(inner) if inner else b"") + b"0\r\n\r\n"
    answer = send(server, "inner", body)
    assert answer.startswith(b"HTTP/1.1 400"), answer[:200]
    assert b"ListAllMyBucketsResult" in answer


@pytest.mark.parametrize("seed", range(40))
def test_mutated_uploads_are_answered(server: RunningS3, seed: int) -> None:
    """Every mutation is answered with a status or a closed connection, and the server goes on."""
    rng = random.Random(seed)
    body = bytearray(chunk(INNER) + b"0\r\n\r\n")
    for _ in range(rng.randint(1, 4)):
        position = rng.randrange(len(body))
        match rng.randrange(4):
            case 0:
                body[position] = rng.randrange(256)
            case 1:
                del body[position : position + rng.randint(1, 6)]
            case 2:
                body[position:position] = rng.randbytes(rng.randint(1, 6))
            case _:
                body[position:position] = b"\r\n" * rng.randint(1, 3)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock:
        head = (
            f"PUT /chunky/fuzz HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n{AWS_CHUNKED}\r\n"
        )
        sock.sendall(head.encode() + body)
        sock.shutdown(socket.SHUT_WR)
        received = b""
        while data := sock.recv(65536):
            received += data
    assert not received or received.startswith(b"HTTP/1.1 ")
    assert b"500 Internal" not in received
    assert [bucket["Name"] for bucket in server.client().list_buckets()["Buckets"]] == ["chunky"]


def test_stop_ends_a_process_whose_clients_hang(own_cloud: Callable[..., Cloud]) -> None:
    cloud = own_cloud()
    cloud.s3.create_bucket(Bucket="hanging")
    port = int(cloud.url.rpartition(":")[2])
    waiting = [socket.create_connection(("127.0.0.1", port)) for _ in range(8)]
    for sock in waiting:
        sock.sendall(b"PUT /hanging/a HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\nabc")
    ended = threading.Event()
    threading.Thread(target=lambda: (cloud.stop(), ended.set()), daemon=True).start()
    assert ended.wait(40)
    for sock in waiting:
        sock.close()
    eventually(lambda: not (Path(cloud.state) / "pid").exists())
