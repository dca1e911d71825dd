"""A client's socket: partial writes, back-pressure, ends and losses, on real sockets."""

from __future__ import annotations

import os
import resource
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from model_code.serve.http.poller import Poller, SelectorPoller, best_poller
from model_code.serve.http.reactor import Reactor
from model_code.serve.http.transport import Channel
from tests.model_code.serve.running import DEADLINE, FIXED, Server, read_reply, wait_for
from tests.model_code.serve.test_http import post
from tests.model_code.serve.toy_bundle import photo, write_toy

RED = photo("red", kind="PNG")


class Nothing:
    """No work at all."""

    waiting = False
    room = True

    def take(self) -> None:
        raise AssertionError("there is no task")

    def run(self, task: object) -> None:
        raise AssertionError("there was no task")

    finish = run


class Owner:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.data = b""

    def received(self, data: bytes) -> None:
        if data == b"trouble":
            raise ValueError("trouble")
        self.data += data

    def ended(self) -> None:
        self.heard.append("ended")

    def full(self) -> None:
        self.heard.append("full")

    def drained(self) -> None:
        self.heard.append("drained")

    def lost(self) -> None:
        self.heard.append("lost")


class Pair:
    """A channel and the client at its other end."""

    def __init__(self, poller: Poller | None = None) -> None:
        self.troubles: list[Exception] = []
        self.reactor = Reactor(self.troubles.append, poller)
        listening = socket.create_server(("127.0.0.1", 0))
        self.client = socket.create_connection(listening.getsockname())
        self.client.settimeout(DEADLINE)
        theirs, _ = listening.accept()
        listening.close()
        self.owner = Owner()
        self.channel = Channel(self.reactor, theirs)
        self.do(lambda: self.channel.open(self.owner))
        self.reactor.start(Nothing(), 1, 0.01, lambda: None)

    def do(self, action: Callable[[], None]) -> None:
        with self.reactor.held():
            action()

    def hears(self, *words: str) -> None:
        wait_for(lambda: self.owner.heard == list(words), f"{words}, not {self.owner.heard}")


@pytest.fixture(params=[best_poller, SelectorPoller])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    made = Pair(request.param())
    yield made
    made.client.close()


def receive_all(client: socket.socket) -> bytes:
    data = b""
    while part := client.recv(1 << 16):
        data += part
    return data


def test_what_does_not_fit_is_sent_later_in_order_and_then_the_end(pair: Pair) -> None:
    data = os.urandom(8 << 20)
    with pair.reactor.held():
        for start in range(0, len(data), 100_000):
            pair.channel.write(data[start : start + 100_000])
    pair.do(pair.channel.end)
    assert pair.owner.heard == ["full"]
    assert receive_all(pair.client) == data
    pair.hears("full", "drained")
    # Its own direction is open still.
    pair.client.sendall(b"more")
    wait_for(lambda: pair.owner.data == b"more", "the client's bytes")


def test_close_sends_what_was_written_and_reads_no_more(pair: Pair) -> None:
    data = os.urandom(8 << 20)
    pair.do(lambda: pair.channel.write(data))
    pair.do(pair.channel.close)
    pair.client.sendall(b"too late")
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(_until_closed(pair.client)))
    reader.start()
    wait_for(lambda: "lost" in pair.owner.heard, "the channel to be closed")
    reader.join(DEADLINE)
    # Unread bytes turn a close into a reset, which may overtake what was sent.
    assert data.startswith(received[0])
    assert pair.owner.data == b""


def _until_closed(client: socket.socket) -> bytes:
    data = b""
    try:
        while part := client.recv(1 << 16):
            data += part
    except ConnectionResetError:
        pass
    return data


def test_abort_forgets_what_is_unsent(pair: Pair) -> None:
    pair.do(lambda: pair.channel.write(bytes(64 << 20)))
    pair.do(pair.channel.abort)
    assert pair.owner.heard == ["full", "lost"]
    assert len(_until_closed(pair.client)) < 64 << 20
    pair.do(lambda: pair.channel.write(b"not received"))
    pair.do(pair.channel.close)
    pair.do(pair.channel.end)
    assert pair.owner.heard == ["full", "lost"]


def test_a_client_that_ends_may_still_read(pair: Pair) -> None:
    pair.client.sendall(b"question")
    pair.client.shutdown(socket.SHUT_WR)
    pair.hears("ended")
    assert pair.owner.data == b"question"
    pair.do(lambda: pair.channel.write(b"answer"))
    pair.do(pair.channel.close)
    assert receive_all(pair.client) == b"answer"
    pair.hears("ended", "lost")


def test_a_reset_is_a_loss(pair: Pair) -> None:
    pair.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    pair.client.close()
    pair.hears("lost")


def test_an_owner_that_fails_loses_its_channel_and_harms_no_other(pair: Pair) -> None:
    pair.client.sendall(b"trouble")
    pair.hears("lost")
    assert pair.client.recv(1) == b""
    assert [str(trouble) for trouble in pair.troubles] == ["trouble"]
    listening = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listening.getsockname())
    second = Owner()
    with pair.reactor.held():
        Channel(pair.reactor, listening.accept()[0]).open(second)
    client.sendall(b"other")
    wait_for(lambda: second.data == b"other", "another channel's bytes")
    listening.close()
    client.close()


def test_a_paused_channel_leaves_bytes_where_they_are(pair: Pair) -> None:
    pair.do(lambda: pair.channel.pause(True))
    pair.client.sendall(b"early")
    other = Pair()
    other.client.sendall(b"other")
    wait_for(lambda: other.owner.data == b"other", "another channel's bytes")
    other.client.close()
    assert pair.owner.data == b""
    pair.do(lambda: pair.channel.pause(False))
    wait_for(lambda: pair.owner.data == b"early", "the bytes")


def test_a_process_without_free_files_serves_its_clients_and_then_the_others(tmp_path: Path) -> None:
    with Server(write_toy(tmp_path / "toy"), tmp_path, *FIXED) as server:
        (child,) = server.children()
        with server.raw() as known:
            known.sendall(post(RED))
            assert read_reply(known).status == 200
            files = len(list(Path(f"/proc/{child}/fd").iterdir()))
            _, hard = resource.prlimit(child, resource.RLIMIT_NOFILE)
            resource.prlimit(child, resource.RLIMIT_NOFILE, (files + 3, hard))
            clients = [server.raw() for _ in range(6)]
            for client in clients:
                client.sendall(post(RED))
            for client in clients[:3]:
                assert read_reply(client).status == 200
            known.sendall(post(RED))
            assert read_reply(known).status == 200
            for client in clients[:3]:
                client.close()
            for client in clients[3:]:
                assert read_reply(client).status == 200
                client.close()
