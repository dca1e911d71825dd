"""Figures of a candidate, and the frontier: the candidates that no other one beats."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model_code.bundle.card import RUNTIME_FILES


@dataclass(frozen=True)
class Outcome:
    """Figures of one candidate.

    Attributes:
        name: Architecture, with the weights where two candidates share it.
        accuracy: On the test split, in 0..1.
        interval: Its 95 % interval.
        runtime: That serves the model.
        milliseconds: Median time of an answer on this machine.
        photos_per_second: Of batches, on this machine.
        megabytes: Of the file that serves.
    """

    name: str
    accuracy: float
    interval: tuple[float, float]
    runtime: str
    milliseconds: float
    photos_per_second: float
    megabytes: float

    def usd_per_million(self, usd_per_hour: float) -> float:
        """Return the price of a million answers: USD per hour / 3600 / photos per second x 1,000,000."""
        return usd_per_hour / 3600 / self.photos_per_second * 1e6


def read(name: str, folder: Path) -> Outcome:
    """Read what `steps` wrote into a candidate's folder."""
    found = json.loads((folder / "evaluation" / "evaluation.json").read_text())
    low, high = found["accuracy_interval"]["low"], found["accuracy_interval"]["high"]
    return Outcome(
        name=name,
        accuracy=found["accuracy"],
        interval=(low, high),
        runtime=found["runtime"],
        milliseconds=found["latency"]["p50"],
        photos_per_second=found["photos_per_second"],
        megabytes=(folder / "model" / RUNTIME_FILES[found["runtime"]]).stat().st_size / 1e6,
    )


def frontier(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the outcomes that no other one beats in accuracy without being slower, fastest first."""
    best: list[Outcome] = []
    for outcome in sorted(outcomes, key=lambda found: (found.milliseconds, -found.accuracy)):
        if not best or outcome.accuracy > best[-1].accuracy:
            best.append(outcome)
    return best
