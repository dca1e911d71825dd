"""Progress of a job: lines that triggers and `make run` parse, or a bar on a terminal."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_BAR = 30


class Progress:
    """Counts units of work and reports them, at most every `every` seconds.

    To a terminal it draws one bar; anywhere else it prints `progress done=<n> total=<n> unit=<unit>` lines
    (docs/contracts.md, "Log lines").

    Args:
        total: Number of units.
        unit: photos, epochs, shards, trials, or passes (of the search for an int8 form).
        every: Least seconds between two reports.
        stream: Where to report; default: stdout.
    """

    def __init__(self, total: int, unit: str, every: float = 1.0, stream: TextIO | None = None) -> None:
        self.total = total
        self.unit = unit
        self.done = 0
        self._stream = stream or sys.stdout
        self._every = every
        self._said = float("-inf")
        self._started = time.monotonic()

    def advance(self, units: int = 1) -> None:
        """Count `units` more."""
        self.done += units
        now = time.monotonic()
        if now - self._said >= self._every or self.done >= self.total:
            self._said = now
            self._say()

    def rate(self) -> float:
        """Units per second so far."""
        return self.done / max(1e-9, time.monotonic() - self._started)

    def _say(self) -> None:
        if not self._stream.isatty():
            print(
                f"progress done={self.done} total={self.total} unit={self.unit}",
                file=self._stream,
                flush=True,
            )
            return
        filled = _BAR * self.done // max(1, self.total)
        bar = "#" * filled + "." * (_BAR - filled)
        end = "\n" if self.done >= self.total else ""
        print(
            f"\r[{bar}] {self.done}/{self.total} {self.unit}, {self.rate():.0f}/s ",
            end=end,
            file=self._stream,
            flush=True,
        )


class Bars:
    """A bar per unit, from reports of (done, total, unit)."""

    def __init__(self) -> None:
        self._bar: Progress | None = None

    def __call__(self, done: int, total: int, unit: str) -> None:
        """Show how much of a unit is done."""
        if self._bar is None or self._bar.unit != unit:
            self._bar = Progress(total, unit)
        self._bar.advance(done - self._bar.done)
