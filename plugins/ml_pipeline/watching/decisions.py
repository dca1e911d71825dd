"""Decide what a look at an endpoint means: quiet, an alarm, or a proposal to train again.

False alarms are spent by time, not by look: a look that covers a day rings falsely with the probability of a day's
share of `alarms_a_year`, however often looks are taken. A proposal needs two looks in a row, whose photos do not
overlap, and an estimated accuracy that has really fallen. While one is open or a cool-down runs, there is no second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

DAYS_A_YEAR = 365.0
# A look by hand spends as much as that of an hour: a level far below would need millions of permutations.
_SHORTEST = timedelta(hours=1)
# One-sided 95 % and two-sided 95 % of the normal distribution.
_ONE_SIDED, _TWO_SIDED = 1.645, 1.960


class Verdict(StrEnum):
    """The conclusion from a look."""

    TOO_FEW = "too few"
    QUIET = "quiet"
    ALARM = "alarm"
    PROPOSAL = "proposal"


@dataclass(frozen=True)
class Policy:
    """The error rates allowed to a watch.

    Attributes:
        alarms_a_year: False alarms per year and endpoint, at most.
        proposals_a_year: False proposals per year and endpoint, at most.
        least_photos: Photos (a burst counts once) below which nothing is tested.
        cooldown: No proposal within so long of the last one or of a deployment.
    """

    alarms_a_year: float = 1.0
    proposals_a_year: float = 0.01
    least_photos: int = 20
    cooldown: timedelta = timedelta(days=7)

    def __post_init__(self) -> None:
        if self.alarms_a_year <= 0 or self.proposals_a_year <= 0:
            raise ValueError("alarms_a_year and proposals_a_year must be above 0: no test never errs")
        if self.least_photos < 2:
            raise ValueError(f"least_photos is {self.least_photos}; a test needs at least 2")

    def level(self, covered: timedelta) -> float:
        """Level of the alarm of a look that covers so much time; two in a row stay within `proposals_a_year`."""
        years = max(covered, _SHORTEST).total_seconds() / 86400 / DAYS_A_YEAR
        return min(0.05, self.alarms_a_year * years, math.sqrt(self.proposals_a_year * years))


@dataclass(frozen=True)
class Look:
    """The findings of one look.

    Attributes:
        number: Counts up per endpoint.
        ended: End of the time it covers.
        photos: Photos tested, a burst counted once.
        p: p-value of all alarming tests together.
        level: What p is compared with.
        accuracy, low, high: Estimated accuracy and its interval; None where too few photos.
        model: Digest of the model that served.
    """

    number: int
    ended: datetime
    photos: int
    p: float
    level: float
    model: str
    accuracy: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def rings(self) -> bool:
        """The window is not what the reference is."""
        return self.p <= self.level


@dataclass(frozen=True)
class Decision:
    """A verdict and why, in a sentence for people."""

    verdict: Verdict
    reason: str


def decide(
    look: Look,
    before: Sequence[Look],
    reference_accuracy: float,
    quiet_until: datetime | None,
    policy: Policy,
) -> Decision:
    """Judge `look`.

    Args:
        look: The look to judge.
        before: Earlier looks of the same endpoint, oldest first.
        reference_accuracy: Of the model, on the photos that the reference holds.
        quiet_until: No proposal before: an open one, a cool-down, or a deployment.
        policy: Error rates and thresholds of the watch.
    """
    if look.photos < policy.least_photos:
        return Decision(
            Verdict.TOO_FEW,
            f"too few photos: {look.photos}, at least {policy.least_photos} different ones are needed",
        )
    if not look.rings:
        return Decision(Verdict.QUIET, f"no change beyond chance (p={look.p:.4f}, level {look.level:.2g})")
    changed = f"the photos have changed (p={look.p:.2g}, level {look.level:.2g})"
    previous = next((other for other in reversed(before) if other.photos >= policy.least_photos), None)
    if previous is None or not previous.rings or previous.model != look.model:
        return Decision(Verdict.ALARM, f"{changed}; a second look in a row would make it a proposal")
    if not _has_fallen((previous, look), reference_accuracy):
        return Decision(
            Verdict.ALARM, f"{changed}, but the estimated accuracy has not fallen: nothing to retrain for"
        )
    if quiet_until is not None and look.ended < quiet_until:
        return Decision(Verdict.ALARM, f"{changed}; no proposal before {quiet_until:%Y-%m-%d %H:%M} UTC")
    return Decision(
        Verdict.PROPOSAL,
        f"{changed} in two looks in a row; estimated accuracy {look.accuracy:.1%} against {reference_accuracy:.1%}",
    )


def _has_fallen(looks: Sequence[Look], reference_accuracy: float) -> bool:
    """The mean estimate is below the reference's by more than its own one-sided error."""
    falls, variance = [], 0.0
    for look in looks:
        if look.accuracy is None or look.low is None or look.high is None:
            return False
        falls.append(reference_accuracy - look.accuracy)
        variance += ((look.high - look.low) / 2 / _TWO_SIDED) ** 2
    return sum(falls) / len(falls) > _ONE_SIDED * math.sqrt(variance) / len(falls)
