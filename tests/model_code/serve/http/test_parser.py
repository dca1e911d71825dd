"""Bytes into requests, whatever way the network cuts them."""

from __future__ import annotations

import tracemalloc

import pytest

from model_code.serve.http.limits import Limits
from model_code.serve.http.messages import HttpError, Request
from model_code.serve.http.parser import Budget, RequestReader


class Received:
    """A reader and what came out of it."""

    def __init__(self, buffered: int = 1 << 30) -> None:
        self.budget = Budget(buffered)
        self.requests: list[Request] = []
        self.reader = RequestReader(Limits(), self.budget, lambda: None, self.requests.append)

    def feed_without_end(self, data: bytes) -> None:
        """The same bytes again and again, up to a bound that no limit should let pass."""
        for _ in range(100):
            self.reader.feed(data)


def post(body: bytes) -> bytes:
    return b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def test_a_head_that_begins_in_the_read_of_a_big_body() -> None:
    received = Received()
    data = post(bytes(200_000)) + post(b"second")
    cut = data.rindex(b"Host")
    received.reader.feed(data[:cut])
    assert received.reader.receiving
    received.reader.feed(data[cut:])
    assert [len(request.body) for request in received.requests] == [200_000, 6]
    assert not received.reader.receiving


def test_a_head_without_end_is_refused_in_every_cut() -> None:
    for size in (1000, 50_000):
        received = Received()
        received.reader.feed(post(b"first") + b"GET /ping HTTP/1.1\r\nX: ")
        with pytest.raises(HttpError) as refusal:
            received.feed_without_end(b"y" * size)
        assert refusal.value.status == 431
        assert len(received.requests) == 1


def test_a_body_counts_until_its_size_is_given_back() -> None:
    received = Received(buffered=2000)
    received.reader.feed(post(bytes(1000)))
    (request,) = received.requests
    assert received.budget.held == request.held > 1000
    with pytest.raises(HttpError) as refusal:
        received.reader.feed(post(bytes(1000)))
    assert (refusal.value.status, refusal.value.headers) == (503, (("Retry-After", "1"),))
    received.reader.discard()
    received.budget.give_back(request.held)
    assert received.budget.held == 0


def test_requests_without_a_body_count_too() -> None:
    received = Received(buffered=100_000)
    with pytest.raises(HttpError) as refusal:
        received.feed_without_end(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
    assert refusal.value.status == 503
    assert 100 < len(received.requests) < 1000
    received.reader.discard()
    assert received.budget.held == sum(request.held for request in received.requests) <= 100_000


@pytest.mark.parametrize("begin", [b"2\r\nab\r\n0\r\nX: ", b"2\r\nab\r\n0\r\n", b"2;"])
def test_a_trailer_or_chunk_extension_without_end_is_refused(begin: bytes) -> None:
    received = Received()
    received.reader.feed(
        b"POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + begin
    )
    with pytest.raises(HttpError) as refusal:
        received.feed_without_end(b"y" * 50_000)
    assert refusal.value.status == 431
    assert not received.requests


def test_a_discarded_body_no_longer_counts() -> None:
    received = Received()
    received.reader.feed(post(bytes(600))[:-100])
    assert received.budget.held == 500
    received.reader.discard()
    assert received.budget.held == 0


def test_a_body_in_the_smallest_pieces_costs_no_more_than_its_size() -> None:
    received = Received()
    received.reader.feed(b"POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunks = b"2\r\nab\r\n" * 10_000
    tracemalloc.start()
    try:
        for _ in range(10):
            received.reader.feed(chunks)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    received.reader.feed(b"0\r\n\r\n")
    (request,) = received.requests
    assert request.body == b"ab" * 100_000
    assert received.budget.held == request.held
    assert peak < 4 * len(request.body)
