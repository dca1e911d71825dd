"""Map a function over items with threads, in order and with bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int | None = None,
    ahead: int | None = None,
) -> Iterator[Result]:
    """`map` on threads, results in order; few items are in flight at a time, so memory does not grow.

    Args:
        function: Called on a thread per item.
        items: Taken as results are consumed.
        workers: Threads; default: the cores of this machine.
        ahead: Most items in flight or waiting to be consumed; default: four per thread.
    """
    threads = workers or os.cpu_count() or 1
    most = ahead or 4 * threads
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= most:
                yield waiting.popleft().result()
        for future in waiting:
            yield future.result()
