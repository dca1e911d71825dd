"""Turns of the reactor's threads: work that never ends keeps no other client waiting."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest

from model_code.serve.http import reactor as reactors
from model_code.serve.http.poller import READ
from model_code.serve.http.reactor import Reactor


class NoWork:
    waiting = False
    room = True

    def take(self) -> Any:
        raise AssertionError("there is none")

    def run(self, task: Any) -> None:
        raise AssertionError("there is none")

    def finish(self, task: Any) -> None:
        raise AssertionError("there is none")


@pytest.mark.parametrize("workers", [0, 3])
def test_a_client_is_heard_while_others_fill_every_turn(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine a thread that waits for the lock wakes late: here, the pause is no pause at all."""
    if workers:
        monkeypatch.setattr(reactors, "_COURTESY", 0.0)
    reactor, heard, ended = Reactor(lambda error: None), threading.Event(), threading.Event()
    here, there = socket.socketpair()
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        until = time.monotonic() + 0.002
        while time.monotonic() < until:
            pass
        if not ended.is_set():
            reactor.later(turn)

    with here, there:
        with reactor.held():
            reactor.watch(here.fileno(), READ, lambda _: heard.set() if here.recv(1) else None)
            for _ in range(20):
                reactor.later(turn)
        reactor.start(NoWork(), workers, 1.0, lambda: None)
        try:
            while turns < 100:
                time.sleep(0.01)
            asked = turns
            there.send(b"x")
            assert heard.wait(30)
            # One round of 20 turns may be under way, and one more may begin before the event is seen.
            assert turns - asked < 20 * 20
        finally:
            ended.set()
        with reactor.held():
            reactor.watch(here.fileno(), 0, lambda _: None)
