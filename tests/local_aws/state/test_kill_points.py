"""Acknowledged writes of six writers survive kill -9 at random moments."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.local_aws.state import kill_points


@pytest.mark.parametrize("points", [2, pytest.param(60, marks=pytest.mark.slow)])
def test_no_acknowledged_write_is_lost(tmp_path: Path, points: int) -> None:
    result = kill_points.main(points, seed=points, folder=tmp_path)
    assert result["kills"] == points
    assert result["lost"] == []
    assert sum(result["acknowledged"].values()) > points
