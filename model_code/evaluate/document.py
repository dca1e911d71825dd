"""evaluation.json: the figures of a judgment, read by the gate, the registry and the report."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from model_code.bundle.card import ModelCard
from model_code.evaluate import scores
from model_code.evaluate.judging import Judgment
from model_code.evaluate.scores import ClassScores, Integers, Interval, Outcomes

SCHEMA_VERSION = 1
CONFUSED_PAIRS = 20
MATRIX_CLASSES = 50
"""SageMaker's layout lists every pair of classes; with more classes it is left out, and `confusion` has the counts."""


@dataclass(frozen=True)
class Subject:
    """The model that is judged, and the data set it is judged on.

    Args:
        card: the model's.
        runtime: that answered: onnx-int8, onnx or torch.
        sha256: of model.tar.gz; None for a folder.
        dataset: name and version whose test split is used; None where no manifest was given.
    """

    card: ModelCard
    runtime: str
    sha256: str | None
    dataset: Mapping[str, str] | None


def evaluate(subject: Subject, judgment: Judgment) -> dict[str, Any]:
    """Return the document of `schemas/evaluation.schema.json`, without `comparison`."""
    card, outcomes = subject.card, judgment.outcomes
    matrix = scores.confusion(outcomes, len(card.classes))
    classes = scores.class_scores(matrix)
    interval = scores.accuracy_interval(outcomes.hits)
    return {
        "schema_version": SCHEMA_VERSION,
        "model": {
            "name": card.name,
            "architecture": card.architecture,
            "sha256": subject.sha256,
            "dataset": dict(card.dataset),
            "code_version": card.code_version,
        },
        "dataset": None if subject.dataset is None else dict(subject.dataset),
        "runtime": subject.runtime,
        "photos": len(outcomes),
        "unreadable": [{"key": key, "reason": reason} for key, reason in judgment.unreadable],
        "unknown_classes": judgment.unknown,
        "accuracy": float(outcomes.hits.mean()),
        "accuracy_interval": _interval(interval),
        "top5_accuracy": float(outcomes.in_top.mean()),
        "macro_f1": classes.macro(classes.f1),
        "macro_f1_interval": _interval(scores.macro_f1_interval(matrix)),
        "macro_precision": classes.macro(classes.precision),
        "macro_recall": classes.macro(classes.recall),
        "log_loss": _number(outcomes.log_loss()),
        "calibration": calibration(outcomes, card.temperature),
        "abstain": abstention(outcomes, card.abstain_threshold),
        "latency": {**asdict(judgment.latency), "unit": "ms"},
        "photos_per_second": judgment.photos_per_second,
        "classes": _class_rows(card.classes, classes),
        "confusion": _sparse(matrix),
        "confused": [
            {"label": card.classes[true], "prediction": card.classes[other], "photos": count}
            for true, other, count in scores.most_confused(matrix, CONFUSED_PAIRS)
        ],
        "worst": [
            {
                "key": mistake.key,
                "label": mistake.label,
                "prediction": mistake.prediction,
                "confidence": mistake.confidence,
                "likelihood": mistake.likelihood,
                **({"path": mistake.path} if mistake.path else {}),
            }
            for mistake in judgment.worst
        ],
        "multiclass_classification_metrics": model_quality(card.classes, matrix, classes, interval),
        "comparison": None,
    }


def calibration(outcomes: Outcomes, temperature: float) -> dict[str, Any]:
    """Expected calibration error before and after temperature scaling, and the bins after."""
    before = scores.reliability(outcomes.raw_confidence, outcomes.hits)
    after = scores.reliability(outcomes.confidence, outcomes.hits)
    return {
        "temperature": temperature,
        "ece_before": scores.calibration_error(before),
        "ece_after": scores.calibration_error(after),
        "bins": [asdict(part) for part in after],
        "bins_before": [asdict(part) for part in before],
    }


def abstention(outcomes: Outcomes, threshold: float) -> dict[str, Any]:
    """Return the abstention rate at the model's threshold, and the accuracy of the answers it gives."""
    answered = outcomes.confidence >= threshold
    return {
        "threshold": threshold,
        "rate": float(1 - answered.mean()),
        "accuracy_answered": float(outcomes.hits[answered].mean()) if answered.any() else None,
    }


def compare(
    challenger: Mapping[str, Any],
    judgment: Judgment,
    champion: Mapping[str, Any],
    other: Judgment,
    seen: Container[str] = (),
) -> dict[str, Any] | None:
    """Return the `comparison` of a challenger with a champion over the photos that both could read.

    Classes may differ. A photo of a class that a model does not know counts as a mistake of that model, because its
    users would see one; `common` leaves such photos out, and shows whether the challenger got worse at what the
    champion knew.

    Args:
        challenger: Document of the new model.
        judgment: Its answers.
        champion: Document of the model in service.
        other: Its answers.
        seen: Keys of photos that the champion may have been trained on; they are left out.

    Returns:
        The comparison; None where no photo is left.
    """
    places = {key: at for at, key in enumerate(other.keys) if key not in seen}
    pairs = np.array([(at, places[key]) for at, key in enumerate(judgment.keys) if key in places], np.int64)
    if not len(pairs):
        return None
    ours, theirs = pairs[:, 0], pairs[:, 1]
    hits, other_hits = judgment.outcomes.hits[ours], other.outcomes.hits[theirs]
    difference = scores.paired_difference(hits, other_hits)
    known = (judgment.outcomes.labels[ours] != scores.UNKNOWN) & (
        other.outcomes.labels[theirs] != scores.UNKNOWN
    )
    names, other_names = ([row["name"] for row in document["classes"]] for document in (challenger, champion))
    return {
        "champion": champion["model"],
        "champion_runtime": champion["runtime"],
        "champion_accuracy": float(other_hits.mean()),
        "challenger_accuracy": float(hits.mean()),
        "photos": difference.photos,
        "difference": difference.mean,
        "ci_low": difference.interval.low,
        "ci_high": difference.interval.high,
        "only_challenger_right": int((hits & ~other_hits).sum()),
        "only_champion_right": int((other_hits & ~hits).sum()),
        "classes_added": [name for name in names if name not in set(other_names)],
        "classes_removed": [name for name in other_names if name not in set(names)],
        "common": {
            "photos": int(known.sum()),
            "challenger_accuracy": _mean(hits[known]),
            "champion_accuracy": _mean(other_hits[known]),
        },
    }


def model_quality(
    names: tuple[str, ...], matrix: Integers, classes: ClassScores, accuracy: Interval
) -> dict[str, Any]:
    """SageMaker's model-quality layout for several classes, which the model registry shows.

    The keys are those of Model Monitor's statistics.json ("Model quality metrics" in the SageMaker guide). Only the
    accuracy's deviation is estimated; the others are given as SageMaker gives what it does not know, "NaN".
    """
    total = int(matrix.sum())
    values = {
        "weighted_recall": classes.weighted(classes.recall),
        "weighted_precision": classes.weighted(classes.precision),
        "weighted_f0_5": classes.weighted(classes.f_beta(0.5)),
        "weighted_f1": classes.weighted(classes.f1),
        "weighted_f2": classes.weighted(classes.f_beta(2.0)),
    }
    metrics: dict[str, Any] = {
        "accuracy": {"value": float(np.trace(matrix)) / total, "standard_deviation": accuracy.deviation},
        "accuracy_best_constant_classifier": _metric(float(classes.photos.max()) / total),
        **{name: _metric(value) for name, value in values.items()},
    }
    if len(names) <= MATRIX_CLASSES:
        metrics["confusion_matrix"] = {
            name: dict(zip(names, row.tolist(), strict=True))
            for name, row in zip(names, matrix[:-1], strict=True)
        }
    return metrics


def _metric(value: float) -> dict[str, Any]:
    return {"value": value, "standard_deviation": "NaN"}


def _class_rows(names: tuple[str, ...], classes: ClassScores) -> list[dict[str, Any]]:
    columns = (classes.photos, classes.precision, classes.recall, classes.f1)
    return [
        {"name": name, "photos": photos, "precision": precision, "recall": recall, "f1": f1}
        for name, photos, precision, recall, f1 in zip(names, *(c.tolist() for c in columns), strict=True)
    ]


def _sparse(matrix: Integers) -> list[list[int]]:
    rows, columns = np.nonzero(matrix)
    return np.stack([rows, columns, matrix[rows, columns]], axis=1).tolist()


def _interval(interval: Interval) -> dict[str, float]:
    return {"low": interval.low, "high": interval.high, "level": 0.95}


def _mean(hits: Any) -> float | None:
    return float(hits.mean()) if len(hits) else None


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value
