"""MetricDefinitions: regular expressions over a job's log lines; the last match counts."""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Sequence
from typing import Any

from local_aws.errors import validation_error
from local_aws.state.logs import LogStore

Document = dict[str, Any]


class MetricScraper:
    """Collects metrics from log lines; `final` is the FinalMetricDataList. Thread-safe."""

    def __init__(self, definitions: Sequence[Document]) -> None:
        self._patterns = [(d["Name"], re.compile(d["Regex"])) for d in definitions]
        self._series: dict[str, list[tuple[float, float]]] = {}
        self._lock = threading.Lock()

    def feed(self, line: str, when: float | None = None) -> dict[str, float]:
        """Read one line, written at `when` (epoch seconds) or now.

        Returns:
            The metrics of the line, each by its last match.
        """
        found: dict[str, float] = {}
        for name, pattern in self._patterns:
            for match in pattern.finditer(line):
                value = _number(match)
                if value is not None:
                    found[name] = value
        if found:
            when = time.time() if when is None else when
            with self._lock:
                for name, value in found.items():
                    self._series.setdefault(name, []).append((when, value))
        return found

    def final(self) -> list[Document]:
        """Return the last value of every metric seen, in order of definition."""
        with self._lock:
            return [
                {
                    "MetricName": name,
                    "Value": self._series[name][-1][1],
                    "Timestamp": self._series[name][-1][0],
                }
                for name, _ in self._patterns
                if name in self._series
            ]

    def series(self, name: str) -> list[tuple[float, float]]:
        """Return (epoch seconds, value) of every match of one metric, in order."""
        with self._lock:
            return list(self._series.get(name, []))


def scrape_log(
    logs: LogStore, region: str, group: str, job: str, definitions: Sequence[Document]
) -> MetricScraper:
    """Collect the metrics from a job's log, over all hosts and attempts."""
    scraper = MetricScraper(definitions)
    after = 0
    while events := logs.events(region, group, prefix=f"{job}/", after=after):
        for event in events:
            scraper.feed(event.message, event.timestamp / 1000)
        after = events[-1].id
    return scraper


def check_definitions(definitions: Sequence[Document]) -> None:
    """Raise ValidationException for a regular expression that cannot be used."""
    for definition in definitions:
        try:
            re.compile(definition["Regex"])
        except re.error as error:
            raise validation_error(
                f"Invalid regex for metric definition {definition['Name']}: {definition['Regex']} ({error})"
            ) from error


def _number(match: re.Match[str]) -> float | None:
    """Return the first group, or the whole match of a pattern without groups; None unless it is finite."""
    try:
        value = float(match.group(1) if match.re.groups else match.group(0))
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
