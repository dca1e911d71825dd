"""Figures and answers of a model version, read from its evaluation.json and predictions.jsonl for the pages."""

from __future__ import annotations

import json
import re
import sys
from functools import partial
from typing import NamedTuple

from ml_pipeline.console.store import Absent, Store
from ml_pipeline.requests.types import Document

# Rows of the page of a version: classes, mix-ups, and classes of a matrix that is drawn whole.
_CLASSES, _MIXED, _MATRIX = 500, 60, 20
_CHUNK = 2**20
_LONG_LINE = 2**14
_PROBABILITIES = re.compile(rb',\s*"probabilities"')


def figures(store: Store, uri: str) -> Document:
    """Return the figures of an evaluation alone: its classes and confusion may have megabytes."""
    found: Document = _shown_at(store, uri)["figures"]
    return found


def evaluation(store: Store, uri: str) -> Document:
    """Return what the pages show of an evaluation.json.

    Raises:
        Absent: It is gone, or written by another release.
    """
    return store.table(("evaluation", uri), partial(_shown_at, store, uri))


def _shown_at(store: Store, uri: str) -> Document:
    if not uri:
        raise Absent("this version has no evaluation")
    document = store.json_at(uri)
    try:
        return _shown(document)
    except (KeyError, TypeError) as error:
        raise Absent(f"{uri} is of another release ({error})") from error


def _shown(document: Document) -> Document:
    names = ("accuracy", "top5_accuracy", "macro_f1", "log_loss", "photos", "runtime", "photos_per_second")
    return {
        "figures": {
            **{name: document.get(name) for name in names},
            "interval": document["accuracy_interval"],
            "latency_ms": document["latency"]["p50"],
            "calibration_error": document["calibration"]["ece_after"],
        },
        "dataset": document.get("dataset"),
        "classes": [
            {name: row.get(name) for name in ("name", "photos", "recall", "precision")}
            for row in document["classes"]
        ],
        "confusion": document["confusion"],
        "comparison": document.get("comparison"),
    }


def confusion(shown: Document) -> Document:
    """Return what a page draws of the classes: the worst of them, the commonest mix-ups, and a small matrix whole."""
    names = [row["name"] for row in shown["classes"]]
    worst = sorted(shown["classes"], key=lambda row: 2.0 if row["recall"] is None else row["recall"])
    mixed = sorted((cell for cell in shown["confusion"] if cell[0] != cell[1]), key=lambda cell: -cell[2])
    small = len(names) <= _MATRIX
    return {
        "figures": shown["figures"],
        "dataset": shown["dataset"],
        "classes": worst[:_CLASSES],
        "mixed_up": [
            {"label": names[row], "answer": names[column] if column < len(names) else None, "photos": count}
            for row, column, count in mixed[:_MIXED]
            if row < len(names)
        ],
        "names": names if small else [],
        "confusion": shown["confusion"] if small else [],
    }


class Said(NamedTuple):
    """A model's answer to a test photo; probabilities are None where there are too many classes to read them."""

    label: str
    prediction: str
    probability: float | None = None

    @property
    def wrong(self) -> bool:
        """True unless the answer is the label."""
        return self.label != self.prediction


def answers(store: Store, uri: str) -> dict[str, Said]:
    """Return what a version answered to each test photo, by key.

    Raises:
        Absent: predictions.jsonl is gone or damaged.
    """
    if not uri:
        raise Absent("this version has no predictions")

    def read() -> dict[str, Said]:
        try:
            return dict(map(_said, store.stream(uri).iter_lines(_CHUNK)))
        except (ValueError, KeyError) as error:
            raise Absent(f"{uri} is damaged: {error}") from error

    return store.table(("answers", uri), read)


def _said(line: bytes) -> tuple[str, Said]:
    # With 10,000 classes a line has 80 kB, nearly all of it probabilities, which come last.
    last = _PROBABILITIES.search(line) if len(line) > _LONG_LINE else None
    row = json.loads(line[: last.start()] + b"}" if last else line)
    probability = max(row["probabilities"], default=None) if row.get("probabilities") else None
    return row["key"], Said(sys.intern(row["label"]), sys.intern(row["prediction"]), probability)
