"""The answers of a model to its test photos, as the console reads them from predictions.jsonl."""

from __future__ import annotations

import json

import pytest

from ml_pipeline.console.evaluations import Said, _said


def line(classes: int, **separators: tuple[str, str]) -> bytes:
    row = {"key": "k", "label": 'a,"probabilities"', "prediction": "b", "probabilities": [0.5] * classes}
    return json.dumps(row, **separators).encode()  # type: ignore[arg-type]


def test_a_short_line_has_its_probability() -> None:
    assert _said(line(2)) == ("k", Said('a,"probabilities"', "b", 0.5))


@pytest.mark.parametrize("separators", [(", ", ": "), (",", ":")])
def test_probabilities_of_a_long_line_are_not_read(separators: tuple[str, str]) -> None:
    assert _said(line(10_000, separators=separators)) == ("k", Said('a,"probabilities"', "b", None))
