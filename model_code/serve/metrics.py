"""Counters and histograms in Prometheus' text format (version 0.0.4).

The numbers are in shared memory, a row per server process, so that any process can answer a scrape with the sum over
all of them, and a restarted process continues counting in its row. A process writes its own row from
one thread only.
"""

from __future__ import annotations

import mmap
import time
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_SIZES = (1, 2, 4, 8, 16, 32)
_STATUSES = (200, 400, 403, 404, 405, 406, 408, 413, 414, 415, 431, 499, 500, 503)


@dataclass(frozen=True)
class Family:
    """A metric: its name, help line, kind, and the label values or bucket bounds it is split by."""

    name: str
    help: str
    kind: str = "counter"
    label: str = ""
    values: tuple[float | str, ...] = ()

    @property
    def cells(self) -> int:
        """Cells it needs: one per label value; buckets, +Inf and sum for a histogram."""
        return len(self.values) + 2 if self.kind == "histogram" else max(1, len(self.values))


REQUESTS = Family(
    "serve_requests_total", "Answered requests by status.", label="status", values=(*_STATUSES, "other")
)
PHOTOS = Family("serve_photos_total", "Photos answered with a prediction.")
REFUSED = Family("serve_photos_refused_total", "Photos that could not be read.")
LATENCY = Family("serve_request_seconds", "Complete request to answer.", "histogram", values=_SECONDS)
BATCH = Family("serve_batch_size", "Photos in one run of the network.", "histogram", values=_SIZES)
WAIT = Family("serve_queue_seconds", "Wait of a batch's oldest photo.", "histogram", values=_SECONDS)
WORK = Family("serve_work_seconds_total", "Seconds that workers were busy.")
QUEUE = Family("serve_queue_photos", "Photos waiting or being worked on.", "gauge")
CONNECTIONS = Family("serve_connections", "Open connections.", "gauge")
BUFFERED = Family("serve_buffered_bytes", "Bytes of requests held.", "gauge")
MEMORY = Family("serve_resident_bytes", "Resident memory of all server processes.", "gauge")
STARTS = Family(
    "serve_process_starts_total", "Starts of server processes; more than processes means crashes."
)
LOST_LOG_LINES = Family(
    "serve_access_log_lost_total", "Access log lines dropped because the log was blocked."
)

FAMILIES = (
    REQUESTS, PHOTOS, REFUSED, LATENCY, BATCH, WAIT, WORK, QUEUE, CONNECTIONS, BUFFERED, MEMORY, STARTS, LOST_LOG_LINES,
)  # fmt: skip
_OFFSETS: dict[str, int] = {}
_WIDTH = 0
for _family in FAMILIES:
    _OFFSETS[_family.name] = _WIDTH
    _WIDTH += _family.cells


class Board:
    """The shared memory; create it before forking."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._cells = memoryview(mmap.mmap(-1, rows * (_WIDTH + 1) * 8)).cast("d")
        self._well = self._cells[rows * _WIDTH :]
        """Per process: when it was last seen healthy, by `time.perf_counter` (one clock for all); 0: never started."""

    def row(self, number: int) -> Metrics:
        """Return the row of process `number`."""
        return Metrics(self._cells[number * _WIDTH : (number + 1) * _WIDTH], self._well[number : number + 1])

    def silence(self) -> float:
        """Return seconds since the least responsive process was last seen healthy."""
        now = time.perf_counter()
        return max((now - seen for seen in self._well if seen), default=0.0)

    def render(self, info: dict[str, str]) -> bytes:
        """Return the text that Prometheus scrapes; `info` become the labels of `serve_info`."""
        labels = ",".join(f'{name}="{_escape(value)}"' for name, value in info.items())
        lines = [
            "# HELP serve_info What is being served.",
            "# TYPE serve_info gauge",
            f"serve_info{{{labels}}} 1",
        ]
        for family in FAMILIES:
            lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
            lines.extend(_samples(family, self._totals(family)))
        lines += [
            "# HELP serve_silence_seconds Time since the least responsive server process was last seen healthy.",
            "# TYPE serve_silence_seconds gauge",
            f"serve_silence_seconds {self.silence():.3f}",
        ]
        return ("\n".join(lines) + "\n").encode()

    def _totals(self, family: Family) -> list[float]:
        first = _OFFSETS[family.name]
        return [
            sum(self._cells[row * _WIDTH + cell] for row in range(self._rows))
            for cell in range(first, first + family.cells)
        ]


class Metrics:
    """One process's numbers."""

    def __init__(self, cells: memoryview[float], well: memoryview[float]) -> None:
        self._cells = cells
        self._well = well

    def seen_well(self, when: float) -> None:
        """Record that everything this process started before `when` (`time.perf_counter`) has finished."""
        self._well[0] = when

    def add(self, family: Family, amount: float = 1.0) -> None:
        """Raise a counter."""
        self._cells[_OFFSETS[family.name]] += amount

    def set(self, family: Family, value: float) -> None:
        """Set a gauge."""
        self._cells[_OFFSETS[family.name]] = value

    def count_status(self, status: int) -> None:
        """Count an answered request."""
        place = _STATUSES.index(status) if status in _STATUSES else len(_STATUSES)
        self._cells[_OFFSETS[REQUESTS.name] + place] += 1

    def observe(self, family: Family, value: float) -> None:
        """Add to a histogram."""
        first = _OFFSETS[family.name]
        self._cells[first + bisect_left(family.values, value)] += 1
        self._cells[first + family.cells - 1] += value


def _samples(family: Family, totals: list[float]) -> Iterable[str]:
    if family.kind == "histogram":
        count = 0.0
        for bound, number in zip((*family.values, "+Inf"), totals, strict=False):
            count += number
            yield f'{family.name}_bucket{{le="{bound}"}} {count:.0f}'
        yield f"{family.name}_sum {totals[-1]:.9g}"
        yield f"{family.name}_count {count:.0f}"
    elif family.label:
        for value, number in zip(family.values, totals, strict=True):
            if number:
                yield f'{family.name}{{{family.label}="{value}"}} {number:.0f}'
    else:
        yield f"{family.name} {totals[0]:.9g}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
