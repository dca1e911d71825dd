"""Threads that take turns: some wait for the network, some process batches, the others sleep.

The pattern is Leader/Followers (Schmidt et al., "Pattern-Oriented Software Architecture", volume 2, 2000): the thread
that reads a request also processes it and writes the answer. No photo is handed from thread to thread: a hand-over
costs system calls, a wait for a core and another for the GIL.

While all workers are busy, no thread listens for a moment: it would take a core from a working thread to read
requests that have to wait in any case. There is one thread more than may work at a time, which listens if the pause
grows long. Everything but the work itself happens under one lock, so that no other class here has to be thread-safe.
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
"""Longest time without a listening thread, in seconds: the worst-case wait for an answer to /ping."""
_QUIET = 0.25
"""Seconds between checks for a listening thread on an idle server."""

_COURTESY = 1e-4
"""Seconds between looks whether the threads that actions give way to have had the lock."""


class Work(Protocol):
    """Work for threads that do not listen; `run` is called without the reactor's lock, the others with it."""

    @property
    def waiting(self) -> bool:
        """True if there is a task that may start now."""

    @property
    def room(self) -> bool:
        """True if a new task could start at once."""

    def take(self) -> Any:
        """Take the next task, if one is `waiting`."""

    def run(self, task: Any) -> None:
        """Run a task. Must not raise."""

    def finish(self, task: Any) -> None:
        """Complete a finished task. Must not raise."""


class Reactor:
    """Listens to sockets and runs work, on one thread more than may work at a time."""

    def __init__(self, trouble: Callable[[Exception], None], poller: Poller | None = None) -> None:
        """Create the reactor; `trouble` is called with exceptions of callbacks, and the threads continue."""
        self._trouble = trouble
        self._lock = threading.Lock()
        self._poller = poller or best_poller()
        self._deferred: deque[Callable[[], None]] = deque()
        self._later: list[Callable[[], None]] = []
        self._coming: deque[None] = deque()
        """An entry for each thread that waits for the lock."""
        self._sleeping: list[threading.Lock] = []
        """Locks that sleeping threads wait on; releasing one wakes its thread. The last to fall asleep, whose caches
        are the warmest, is the first to be woken. A `Condition` makes a new lock for every wait.
        """
        self._listeners = 0
        self._heard = time.monotonic()
        """When a thread last listened."""
        self._every = 1.0
        self._action: Callable[[], None] = lambda: None
        self._due = 0.0

    def start(self, work: Work, workers: int, every: float, action: Callable[[], None]) -> None:
        """Start the threads.

        Args:
            work: The tasks.
            workers: Tasks that `work` hands out at a time.
            every: Seconds between calls of `action`.
            action: Called periodically.
        """
        self._every, self._action = every, action
        targets = [self._ensure_listening, *[lambda: self._take_turns(work)] * (workers + 1)]
        for number, target in enumerate(targets):
            threading.Thread(target=target, name=f"serve-{number}", daemon=True).start()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock on a thread outside the reactor; the methods below may be called under it."""
        self._acquire()
        try:
            yield
            self._run_deferred()
        finally:
            self._lock.release()

    # -- under the lock ----------------------------------------------------------------------------------------------

    def watch(self, file: int, events: int, ready: Ready) -> None:
        """Have `ready` called with READ, WRITE or both whenever `file` is ready for them; 0 stops watching it.

        The call may be spurious: another thread may have handled the event.
        """
        self._poller.watch(file, events, ready)

    def defer(self, action: Callable[[], None]) -> None:
        """Call `action` before the lock is released, after the current caller has returned."""
        self._deferred.append(action)

    def later(self, action: Callable[[], None]) -> None:
        """Call `action` after other events have had their turn, with the lock released in between."""
        self._later.append(action)

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
                if self._later:
                    self._take_later()
                    if not self._listeners:
                        self._listen(0)
                if work.waiting:
                    self._do(work)
                    if work.waiting and not self._listeners:
                        self._listen(0)
                elif self._later:
                    continue
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
        self._acquire()
        work.finish(task)
        self._run_deferred()

    def _take_later(self) -> None:
        turn, self._later = self._later, []
        self._lock.release()
        # Locks are not fair: this thread would take it again before a waiting one has woken, on busy cores for minutes.
        patience = time.monotonic() + _PATIENCE
        time.sleep(_COURTESY)
        while self._coming and time.monotonic() < patience:
            time.sleep(_COURTESY)
        self._lock.acquire()
        for action in turn:
            self._call(action)
        self._run_deferred()

    def _acquire(self) -> None:
        self._coming.append(None)
        self._lock.acquire()
        self._coming.pop()

    def _sleep(self, alarm: threading.Lock) -> None:
        self._sleeping.append(alarm)
        self._lock.release()
        alarm.acquire()
        self._acquire()

    def _listen(self, seconds: float) -> None:
        self._listeners += 1
        self._lock.release()
        events = self._poller.poll(seconds)
        self._acquire()
        self._listeners -= 1
        for file, flags in events:
            self._poller.dispatch(file, flags, self._call)
        self._heard = now = time.monotonic()
        if now >= self._due:
            self._due = now + self._every
            self._call(self._action)
        self._run_deferred()

    def _ensure_listening(self) -> None:
        before = heard = self._heard
        while True:
            time.sleep(_QUIET if heard == before else _PATIENCE)
            before, heard = heard, self._heard
            with self._lock:
                silent = not self._listeners and time.monotonic() - self._heard > _PATIENCE
                if silent and self._sleeping:
                    self._sleeping.pop().release()
