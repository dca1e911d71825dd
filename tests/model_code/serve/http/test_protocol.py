"""Pipelined requests of one client: answered in order, one per turn, so that other clients never wait for them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from model_code.serve.http.limits import Limits
from model_code.serve.http.messages import HttpError, Response
from model_code.serve.http.protocol import Connection, Exchange, Server

PIPELINED = 500


class Wire:
    """A channel whose later actions run one turn at a time."""

    def __init__(self) -> None:
        self.sent = b""
        self.paused = self.closed = False
        self.turn: list[Callable[[], None]] = []

    def open(self, owner: object) -> None:
        """Nothing to watch."""

    def pause(self, paused: bool) -> None:
        """Remember it."""
        self.paused = paused

    def write(self, data: bytes) -> None:
        """Collect what a client would read."""
        self.sent += data

    def later(self, action: Callable[[], None]) -> None:
        """Queue for the next turn."""
        self.turn.append(action)

    def close(self) -> None:
        """Remember it."""
        self.closed = True

    end = abort = close

    def take_turn(self) -> bool:
        """Run what was queued; False if there was nothing."""
        turn, self.turn = self.turn, []
        for action in turn:
            action()
        return bool(turn)

    @property
    def answers(self) -> list[str]:
        """The bodies sent so far."""
        return [part.rpartition(b"\r\n\r\n")[2].decode() for part in self.sent.split(b"HTTP/1.1 ")[1:]]


class Echo:
    """Answers at once with the path, or holds exchanges back until told to."""

    def __init__(self) -> None:
        self.held: list[Exchange] | None = None
        self.errors: list[HttpError] = []

    def handle(self, exchange: Exchange) -> None:
        """Answer now, or keep for later."""
        if self.held is None:
            exchange.reply(Response(200, exchange.request.path.encode() + exchange.request.body))
        else:
            self.held.append(exchange)

    def answered(self, exchange: Exchange, response: Response, bytes_sent: int) -> None:
        """Nothing to log."""

    def refused(self, error: HttpError) -> None:
        """Remember it."""
        self.errors.append(error)


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def server(echo: Echo) -> Server:
    return Server(echo, Limits())


@pytest.fixture
def connection(server: Server, wire: Wire) -> Connection:
    connection = Connection(server, wire)  # type: ignore[arg-type]
    connection.begin()
    return connection


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def test_each_turn_answers_one_request(connection: Connection, wire: Wire) -> None:
    connection.received(b"".join(get(f"/{n}") for n in range(PIPELINED)))
    turns = 0
    while True:
        turns += 1
        assert wire.answers == [f"/{n}" for n in range(turns)]
        if not wire.take_turn():
            break
    assert turns == PIPELINED
    assert not wire.paused


def test_bodies_and_cuts_anywhere_give_the_same_answers(server: Server, echo: Echo) -> None:
    chunked = (
        b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
    sized = b"POST /s HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\n\r\n\r\nab"
    stream = get("/a") + chunked + sized + get("/b") + b"POST /e HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
    for size in (1, 2, 3, 7, 50, len(stream)):
        wire = Wire()
        connection = Connection(server, wire)  # type: ignore[arg-type]
        connection.begin()
        for start in range(0, len(stream), size):
            connection.received(stream[start : start + size])
            while wire.take_turn():
                pass
        assert wire.answers == ["/a", "/cabcde", "/s\r\n\r\nab".rpartition("\r\n\r\n")[2], "/b", "/e"], size


def test_a_request_being_answered_holds_back_the_next(connection: Connection, wire: Wire, echo: Echo) -> None:
    echo.held = []
    connection.received(get("/a") + get("/b"))
    assert [exchange.request.path for exchange in echo.held] == ["/a"]
    assert wire.paused
    echo.held[0].reply(Response(200, b"a"))
    assert len(echo.held) == 1
    wire.take_turn()
    assert [exchange.request.path for exchange in echo.held] == ["/a", "/b"]
    echo.held[1].reply(Response(200, b"b"))
    assert wire.answers == ["a", "b"]
    assert not wire.paused


def test_nonsense_after_good_requests_is_refused_after_their_answers(
    connection: Connection, wire: Wire, echo: Echo
) -> None:
    connection.received(get("/a") + b"nonsense\r\n\r\n")
    while wire.take_turn():
        pass
    assert wire.answers[0] == "/a"
    assert [error.status for error in echo.errors] == [400]


def test_bytes_of_a_lost_client_are_forgotten(connection: Connection, wire: Wire, server: Server) -> None:
    connection.received(b"".join(get(f"/{n}") for n in range(10)))
    connection.lost()
    while wire.take_turn():
        pass
    assert wire.answers == ["/0"]
    assert server.budget.held == 0
