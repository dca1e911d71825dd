"""Shows a run as it goes: one line a task, a bar where its work is countable."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

PROGRESS_LINE = re.compile(r"\bprogress done=(\d+) total=(\d+) unit=(\w+)")
# Weight of a task that the plan does not list, as it runs in Airflow.
_SHORT_SECONDS = 5.0
FINISHED = {"success", "failed", "skipped", "upstream_failed", "removed"}
MARKS = {
    "success": ("✓", "green"),
    "failed": ("✗", "red"),
    "upstream_failed": ("✗", "red dim"),
    "skipped": ("-", "dim"),
    "running": ("▸", "cyan"),
    "deferred": ("▸", "cyan"),
    "awaiting_input": ("?", "yellow"),
    "up_for_retry": ("↻", "yellow"),
}

# What a state means, for a terminal without colors and for logs.
WORDS = {
    "success": "done",
    "deferred": "waits for AWS",
    "awaiting_input": "waits for you",
    "up_for_retry": "will try again",
    "upstream_failed": "not reached",
}


@dataclass(frozen=True)
class Count:
    """Countable work of a task, from its log."""

    done: int
    total: int
    unit: str


def latest_count(lines: Iterable[str]) -> Count | None:
    """Return the last progress line of a log, or None."""
    found = None
    for line in lines:
        if match := PROGRESS_LINE.search(line):
            found = Count(int(match[1]), int(match[2]), match[3])
    return found


def state_of(task: Mapping[str, Any]) -> str:
    """Return the state of a task instance; "waiting" while it has none."""
    return str(task.get("state") or "waiting")


def seconds_of(task: Mapping[str, Any], now: float) -> float | None:
    """Return seconds since the task's first start, None before it."""
    from datetime import datetime

    if not task.get("start_date"):
        return None
    start = datetime.fromisoformat(task["start_date"].replace("Z", "+00:00")).timestamp()
    end = task.get("end_date")
    stop = datetime.fromisoformat(end.replace("Z", "+00:00")).timestamp() if end else now
    return max(stop - start, 0.0)


@dataclass(frozen=True)
class Total:
    """Progress of a run: the share that is done, and the seconds that are left; None before there is a rate."""

    share: float
    left: float | None


def total_of(
    tasks: Sequence[Mapping[str, Any]],
    counts: Mapping[str, Count],
    planned: Mapping[str, float],
    now: float,
) -> Total:
    """Add up a run: each task weighs its planned seconds, and the rate is that of what is done.

    Args:
        tasks: Task instances of the run.
        counts: Countable work of tasks that run.
        planned: Seconds of the plan's steps by task; what has none weighs little.
        now: Seconds since the epoch.
    """
    weights = {task["task_id"]: planned.get(task["task_id"], _SHORT_SECONDS) for task in tasks}
    done = 0.0
    for task in tasks:
        name, count = task["task_id"], counts.get(task["task_id"])
        if state_of(task) in FINISHED:
            done += weights[name]
        elif count:
            done += weights[name] * min(count.done / max(count.total, 1), 1.0)
    starts = [
        now - seconds
        for task in tasks
        if (seconds := seconds_of({**task, "end_date": None}, now)) is not None
    ]
    whole = sum(weights.values())
    if not starts or not done:
        return Total(0.0, None)
    return Total(done / whole, (whole - done) * (now - min(starts)) / done)


class ProgressView:
    """A live table on a terminal; plain lines, one for each change, where there is none (CI, a pipe)."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live = Live(console=console, refresh_per_second=4) if console.is_terminal else None
        self._printed: dict[str, str] = {}
        self._counts: dict[str, Count] = {}
        self.planned: dict[str, float] = {}

    def __enter__(self) -> ProgressView:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def update(self, tasks: list[dict[str, Any]], counts: Mapping[str, Count]) -> None:
        """Show the states of the tasks and their latest progress counts."""
        self._counts.update(counts)
        now = time.time()
        if self._live:
            self._live.update(self._table(tasks, now))
            return
        for task in tasks:
            self._print_change(task, now)

    def _print_change(self, task: Mapping[str, Any], now: float) -> None:
        name, state = task["task_id"], state_of(task)
        count = self._counts.get(name)
        tenth = f" {10 * count.done // max(count.total, 1) * 10}%" if count and state not in FINISHED else ""
        if state in ("waiting", "scheduled", "queued", "removed") or self._printed.get(name) == state + tenth:
            return
        self._printed[name] = state + tenth
        seconds = seconds_of(task, now)
        spent = f" {seconds:5.0f} s" if seconds is not None else ""
        work = f"  {count.done} of {count.total} {count.unit}" if count and tenth else ""
        self.console.print(f"{name:<16} {WORDS.get(state, state):<14}{spent}{work}", highlight=False)

    def _table(self, tasks: list[dict[str, Any]], now: float) -> RenderableType:
        table = Table.grid(padding=(0, 1))
        for task in tasks:
            state = state_of(task)
            mark, style = MARKS.get(state, ("·", "dim"))
            seconds = seconds_of(task, now)
            table.add_row(
                Text(mark, style),
                Text(task["task_id"], style if state in ("failed", "running", "deferred") else ""),
                Text("" if seconds is None else f"{seconds:4.0f} s", "dim"),
                self._bar(task["task_id"], state),
            )
        total = total_of(tasks, self._counts, self.planned, now)
        left = "" if total.left is None else f", about {_span(total.left)} left"
        return Group(table, Text(f"{total.share:4.0%} of the run{left}", "bold"))

    def _bar(self, name: str, state: str) -> RenderableType:
        count = self._counts.get(name)
        if count is None or state in FINISHED:
            return Text("")
        row = Table.grid(padding=(0, 1))
        row.add_row(
            ProgressBar(total=max(count.total, 1), completed=count.done, width=30),
            Text(f"{count.done}/{count.total} {count.unit}  {count.done / max(count.total, 1):.0%}", "dim"),
        )
        return row


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


@contextlib.contextmanager
def download_bar(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback that draws the bar; it takes the bytes done and in total (0: unknown)."""
    columns = (TextColumn("downloading photos"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("download", total=None, visible=False)

        def advance(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total or None, visible=True)

        yield advance
