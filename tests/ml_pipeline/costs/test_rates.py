"""Rates that jobs measured."""

from __future__ import annotations

import pytest

from ml_pipeline.costs import rates
from ml_pipeline.costs.prices import Prices
from ml_pipeline.costs.rates import Rate


def test_machines_are_compared_by_what_was_measured_and_nothing_else() -> None:
    rate = Rate("embed", "mobilenet_v2", "ml.m5.xlarge", 100.0, rates.THIS_MACHINE, "embed-1")
    table = rates.comparison([rate], Prices.load(), "mobilenet_v2")
    assert table[0]["usd_per_million_photos"] == pytest.approx(0.23 / 3600 / 100 * 1e6, rel=1e-4)
    assert table[0]["measured"] == "this machine"
    assert all(row["measured"] == "not measured" for row in table[1:])
    assert all(row["usd_per_million_photos"] is None for row in table[1:])


def test_the_last_rate_of_a_log_counts() -> None:
    assert rates.in_log(["photos_per_second=1.5", "noise", "valid_loss=1 photos_per_second=20.25"]) == 20.25
    assert rates.in_log(["nothing"]) is None
