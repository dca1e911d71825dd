"""Threads that take turns: some wait for the network, some work on batches, the others sleep.

The pattern is Leader/Followers (Schmidt et al., "Pattern-Oriented Software Architecture", volume 2, 2000): the thread
that reads a request works on it itself and writes the answer. Nothing is handed from thread to thread on the way of a
photo, where a hand-over costs system calls, a wait for a core and another for the GIL.

While all that may work do, nobody listens for a moment: a thread that did would only take a core from one that works,
to read what has to wait in any case. There is one thread more than may work at a time, which listens when the moment
grows long. Everything but the work itself happens under one lock, so that nothing else here has to know of threads.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from model_code.serve.http.poller import Poller, Ready, best_poller

_PATIENCE = 0.02
"""Seconds for which nobody has to listen: what a client waits for the answer to its /ping at worst."""
_QUIET = 0.25
"""Seconds between looks at whether somebody listens, on a server that hears nothing."""


class Work(Protocol):
    """What the threads do when they do not listen; `run` without the reactor's lock, the others with it."""

    @property
    def waiting(self) -> bool:
        """Whether there is something to do that may be begun now."""

    @property
    def room(self) -> bool:
        """Whether something that comes may be begun at once."""

    def take(self) -> Any:
        """What is to be done, where something is `waiting`."""

    def run(self, task: Any) -> None:
        """Do it. Must not raise."""

    def finish(self, task: Any) -> None:
        """It is done. Must not raise."""


class Reactor:
    """Listens to sockets and works, on as many threads as may work at a time and one more."""

    def __init__(self, trouble: Callable[[Exception], None], poller: Poller | None = None) -> None:
        """Tell `trouble` what callbacks raise; the threads go on."""
        self._trouble = trouble
        self._lock = threading.Lock()
        self._poller = poller or best_poller()
        self._deferred: deque[Callable[[], None]] = deque()
        self._sleeping: list[threading.Lock] = []
        """What sleeping threads wait for, locked; releasing one wakes its thread. The last to fall asleep, whose caches
        are the warmest, is the first to be woken. A `Condition` makes a new lock for every wait.
        """
        self._listeners = 0
        self._heard = time.monotonic()
        """When somebody listened last."""
        self._every = 1.0
        self._action: Callable[[], None] = lambda: None
        self._due = 0.0

    def start(self, work: Work, workers: int, every: float, action: Callable[[], None]) -> None:
        """Start the threads.

        :param workers: how many tasks `work` gives out at a time.
        :param action: called every so many seconds.
        """
        self._every, self._action = every, action
        targets = [self._see_that_somebody_listens, *[lambda: self._take_turns(work)] * (workers + 1)]
        for number, target in enumerate(targets):
            threading.Thread(target=target, name=f"serve-{number}", daemon=True).start()

    @contextmanager
    def held(self) -> Iterator[None]:
        """The lock, for threads that are not the reactor's: under it they may call everything that follows."""
        with self._lock:
            yield
            self._run_deferred()

    # -- under the lock ----------------------------------------------------------------------------------------------

    def watch(self, file: int, events: int, ready: Ready) -> None:
        """Have `ready` called with READ, WRITE or both whenever `file` is ready for them; 0 stops watching it.

        It may be called in vain: another thread may have dealt with it.
        """
        self._poller.watch(file, events, ready)

    def defer(self, action: Callable[[], None]) -> None:
        """Call `action` before the lock is released: when whoever is calling now has come to an end."""
        self._deferred.append(action)

    def _run_deferred(self) -> None:
        while self._deferred:
            self._call(self._deferred.popleft())

    def _call(self, action: Callable[..., None], *arguments: Any) -> None:
        try:
            action(*arguments)
        except Exception as error:
            self._trouble(error)

    # -- the threads -------------------------------------------------------------------------------------------------

    def _take_turns(self, work: Work) -> None:
        alarm = threading.Lock()
        alarm.acquire()
        with self._lock:
            while True:
                if work.waiting:
                    self._do(work)
                    if work.waiting and not self._listeners:
                        self._listen(0)
                elif self._listeners < self._poller.threads:
                    self._listen(max(0.0, self._due - time.monotonic()))
                else:
                    self._sleep(alarm)

    def _do(self, work: Work) -> None:
        task = work.take()
        wanted = work.waiting or (work.room and not self._listeners)
        successor = self._sleeping.pop() if wanted and self._sleeping else None
        self._lock.release()
        if successor is not None:
            successor.release()
        work.run(task)
        self._lock.acquire()
        work.finish(task)
        self._run_deferred()

    def _sleep(self, alarm: threading.Lock) -> None:
        self._sleeping.append(alarm)
        self._lock.release()
        alarm.acquire()
        self._lock.acquire()

    def _listen(self, seconds: float) -> None:
        self._listeners += 1
        self._lock.release()
        events = self._poller.poll(seconds)
        self._lock.acquire()
        self._listeners -= 1
        for file, flags in events:
            self._poller.dispatch(file, flags, self._call)
        self._heard = now = time.monotonic()
        if now >= self._due:
            self._due = now + self._every
            self._call(self._action)
        self._run_deferred()

    def _see_that_somebody_listens(self) -> None:
        before = heard = self._heard
        while True:
            time.sleep(_QUIET if heard == before else _PATIENCE)
            before, heard = heard, self._heard
            with self._lock:
                silent = not self._listeners and time.monotonic() - self._heard > _PATIENCE
                if silent and self._sleeping:
                    self._sleeping.pop().release()
