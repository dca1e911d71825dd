"""Polls sockets from several threads at a time."""

from __future__ import annotations

import select
import selectors
from collections.abc import Callable
from typing import Protocol

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

Ready = Callable[[int], None]


class Poller(Protocol):
    """Watches files. `poll` waits without a lock, on any thread; everything else needs the caller's lock."""

    threads: int
    """Threads that may poll at a time."""

    def watch(self, file: int, events: int, ready: Ready) -> None:
        """Have `ready` called with READ, WRITE or both whenever `file` is ready for them; 0 stops watching it."""

    def poll(self, seconds: float) -> list[tuple[int, int]]:
        """Wait for ready files; each is returned with the flags for `dispatch`."""

    def dispatch(self, file: int, flags: int, call: Callable[[Ready, int], None]) -> None:
        """`call` the registered function. The call may be spurious."""


def best_poller() -> Poller:
    """Return the best poller of this system."""
    return EpollPoller() if hasattr(select, "epoll") else SelectorPoller()


class EpollPoller:
    """Linux: each event wakes one thread, the last that started waiting, whose caches are warm.

    A file that is ready is reported once (EPOLLONESHOT) and then armed again: without, epoll(7) would wake a second
    thread to look at it while the first is about to read.
    """

    threads = 2

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, tuple[int, Ready]] = {}

    def watch(self, file: int, events: int, ready: Ready) -> None:
        """See `Poller`."""
        if not events:
            del self._watched[file]
            self._epoll.unregister(file)
            return
        mask = select.EPOLLONESHOT
        mask |= select.EPOLLIN if events & READ else 0
        mask |= select.EPOLLOUT if events & WRITE else 0
        if file in self._watched:
            self._epoll.modify(file, mask)
        else:
            self._epoll.register(file, mask)
        self._watched[file] = mask, ready

    def poll(self, seconds: float) -> list[tuple[int, int]]:
        """See `Poller`."""
        return self._epoll.poll(seconds)

    def dispatch(self, file: int, flags: int, call: Callable[[Ready, int], None]) -> None:
        """See `Poller`."""
        watched = self._watched.get(file)
        if watched is None:
            return
        # An error or a hang-up shows in the next operation.
        call(watched[1], (flags & ~select.EPOLLOUT and READ) | (flags & ~select.EPOLLIN and WRITE))
        watched = self._watched.get(file)
        if watched is not None:
            self._epoll.modify(file, watched[0])


class SelectorPoller:
    """Other systems, one thread at a time."""

    threads = 1

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._watched: dict[int, Ready] = {}

    def watch(self, file: int, events: int, ready: Ready) -> None:
        """See `Poller`."""
        if not events:
            del self._watched[file]
            self._selector.unregister(file)
        elif file in self._watched:
            self._selector.modify(file, events)
            self._watched[file] = ready
        else:
            self._selector.register(file, events)
            self._watched[file] = ready

    def poll(self, seconds: float) -> list[tuple[int, int]]:
        """See `Poller`."""
        return [(key.fd, events) for key, events in self._selector.select(seconds)]

    def dispatch(self, file: int, flags: int, call: Callable[[Ready, int], None]) -> None:
        """See `Poller`."""
        ready = self._watched.get(file)
        if ready is not None:
            call(ready, flags)
