"""Answers that say "I don't know"."""

from __future__ import annotations

import json

import numpy as np

from model_code.predict.unknown import Unknown, fit_unknown
from model_code.serve.answers import Answer, Writer
from model_code.serve.payload import Format, Options, Query

CLASSES = ("a", "b", "c")


def fitted() -> Unknown:
    labels = np.repeat(np.arange(3), 60)
    noise = np.random.default_rng(0).normal(size=(180, 3))
    logits = 4 * np.eye(3)[labels] + noise
    found = fit_unknown(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels)
    assert found is not None
    return found


def answered(unknown: Unknown | None, row: list[float], options: Options) -> dict[str, object]:
    writer = Writer(CLASSES, 0.5, {"model": {}}, unknown)
    query = Query(photos=(), options=options, format=Format.JSON)
    response = writer.response(query, [Answer.of(np.array(row, np.float32))])
    found: dict[str, object] = json.loads(response.body)["predictions"][0]
    return found


def test_a_sure_answer_is_known_and_an_undecided_one_scores_higher() -> None:
    sure = answered(fitted(), [0.97, 0.02, 0.01], Options())
    undecided = answered(fitted(), [0.34, 0.33, 0.33], Options())
    assert sure["unknown"] is False
    assert sure["unknown_score"] < undecided["unknown_score"]  # type: ignore[operator]
    assert "set" not in sure


def test_a_set_is_given_on_request_and_holds_the_likeliest_class() -> None:
    assert answered(fitted(), [0.1, 0.88, 0.02], Options(set=True))["set"] == ["b"]
    assert answered(fitted(), [0.3, 0.36, 0.34], Options(set=True))["set"][0] == "b"  # type: ignore[index]


def test_a_model_of_an_older_release_says_null() -> None:
    found = answered(None, [0.9, 0.05, 0.05], Options(set=True))
    assert (found["unknown"], found["unknown_score"], found["set"]) == (None, None, None)
