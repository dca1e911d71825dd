"""An event loop whose time is simulated: nothing waits, and the order of everything follows from the seed."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any


class _Selector(selectors.BaseSelector):
    """Instead of waiting for files, move the clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = selectors.SelectorKey(fileobj, 0, events, data)
        self._keys[fileobj] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("the simulation is stuck: nothing is left to happen")
        self._clock.now += timeout
        return []

    def get_map(self) -> Any:
        return self._keys


class Clock:
    """Seconds since the simulation began."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        """Stand in for `time.sleep` in a worker."""
        self.now += seconds


class Loop(asyncio.SelectorEventLoop):
    """The loop of one simulation."""

    def __init__(self, clock: Clock) -> None:
        self._simulated = clock
        super().__init__(_Selector(clock))

    def time(self) -> float:
        return self._simulated.now
