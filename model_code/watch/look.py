"""One look: sample what was captured, compare it with the reference, say what it means in numbers."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model_code.process.progress import Progress
from model_code.watch.bursts import Bursts
from model_code.watch.captures import Served
from model_code.watch.drift import ALARMING, Drift, smallest
from model_code.watch.estimate import Estimate, estimate, per_class, true_accuracy
from model_code.watch.model import Seen, WatchedModel
from model_code.watch.properties import LOOKS
from model_code.watch.reference import Reference
from model_code.watch.worth import choose, doubt

SCHEMA_VERSION: Final = 1


@dataclass(frozen=True)
class Task:
    """Limits and levels of a look.

    Args:
        level: Of the alarm as a whole.
        least: Photos (a burst counts once) below which nothing is tested.
        sample: Photos looked at, at most; drawn by their hash, so that every try draws the same.
        queue: Photos proposed for a review.
        number: Of the look.
    """

    level: float
    least: int = 20
    sample: int = 1000
    queue: int = 20
    number: int = 0


@dataclass(frozen=True)
class Found:
    """The findings of a look.

    Args:
        document: look.json.
        served: The photos looked at that could be read.
        seen: The same photos, as the model sees them.
        counted: Rows of those that count, a burst once.
        queued: Rows proposed for a review, the most wanted first.
    """

    document: dict[str, Any]
    served: list[Served]
    seen: Seen
    counted: NDArray[np.int64]
    queued: NDArray[np.int64]
    queued_why: list[str] = field(default_factory=list)


def look(
    task: Task,
    model: WatchedModel,
    reference: Reference,
    captured: Sequence[Served],
    truth: Mapping[str, str],
    left_out: Counter[str],
) -> Found:
    """Compare captured photos with the reference.

    Args:
        task: Limits and levels of the look.
        model: The deployed model.
        reference: Answers of the same model on photos of its own data set.
        captured: In the order of their time.
        truth: Class names by InferenceId or by a photo's SHA-256, of labels that came back.
        left_out: What was captured and is not among `captured`, by reason.
    """
    drawn = _sample(captured, task.sample)
    progress = Progress(len(drawn), "photos")
    seen = model.see([photo.data for photo in drawn], advance=progress.advance)
    served = [drawn[number] for number in seen.readable.tolist()]
    counted = _counted(reference, served, seen)
    if copies := len(served) - len({photo.sha256 for photo in served}):
        left_out = left_out + Counter(copies=copies)
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "number": task.number,
        "model": model.digest,
        "classes": len(model.predictor.classes),
        "captured": len(captured),
        "looked_at": len(drawn),
        "unreadable": len(seen.unreadable),
        "photos": len(counted),
        "left_out": dict(sorted(left_out.items())),
        "first": captured[0].time.isoformat() if captured else None,
        "last": captured[-1].time.isoformat() if captured else None,
        "level": task.level,
        "reference": {
            "photos": len(reference.labels),
            "accuracy": reference.accuracy,
            "received": len(reference.received) if reference.received else 0,
        },
        "truth": _truth(model, served, seen, truth),
        "p": 1.0,
        "tests": {},
        "accuracy": None,
        "unknown": None,
        "low_confidence": None,
    }
    if len(counted) >= task.least:
        document |= _compared(task, model, reference, seen, counted)
    queued, why = _worth_reviewing(task, model, seen, counted, served, truth)
    return Found(document, served, seen, counted, queued, why)


def _counted(reference: Reference, served: Sequence[Served], seen: Seen) -> NDArray[np.int64]:
    """Return the rows that count: a burst once, and a file that a probe sends again and again once."""
    if not served:
        return np.empty(0, np.int64)
    _, first = np.unique([photo.sha256 for photo in served], return_index=True)
    first.sort()
    kept = Bursts(reference.photos.embeddings).first_of_each(seen.photos.embeddings[first])
    return np.asarray(first[kept], np.int64)


def _sample(captured: Sequence[Served], most: int) -> list[Served]:
    if len(captured) <= most:
        return list(captured)
    ranked = sorted(captured, key=lambda photo: hashlib.sha256(photo.id.encode()).digest())[:most]
    return sorted(ranked, key=lambda photo: (photo.time, photo.id))


def _compared(
    task: Task, model: WatchedModel, reference: Reference, seen: Seen, counted: NDArray[np.int64]
) -> dict[str, Any]:
    window = seen.photos.take(counted)
    tests = Drift(reference.usual).test(window, task.level, task.number)
    classes = model.predictor.classes
    ours, theirs = reference.usual, window
    answers = np.bincount(theirs.probabilities.argmax(axis=1), minlength=len(classes))
    expected = np.bincount(ours.probabilities.argmax(axis=1), minlength=len(classes)) / len(ours)
    threshold = model.predictor.card.abstain_threshold
    return {
        "p": smallest(tests),
        "tests": {
            name: {
                "p": result.p,
                "distance": result.statistic,
                "alarms": name in ALARMING and result.p <= task.level / len(ALARMING),
            }
            for name, result in tests.items()
        },
        "accuracy": _interval(estimate(reference.basis, window.probabilities)),
        "per_class": {
            classes[label]: _interval(found)
            for label, found in per_class(reference.basis, window.probabilities).items()
        },
        "answers": {
            classes[label]: {"photos": int(answers[label]), "expected": float(expected[label] * len(window))}
            for label in np.argsort(-np.abs(answers - expected * len(window)))[:20].tolist()
        },
        "looks": {
            name: {
                "reference": float(ours.looks[:, place].mean()),
                "window": float(theirs.looks[:, place].mean()),
            }
            for place, name in enumerate(LOOKS)
        },
        "low_confidence": {
            "reference": float((ours.probabilities.max(axis=1) < threshold).mean()),
            "window": float((theirs.probabilities.max(axis=1) < threshold).mean()),
        },
        "unknown": _unknown(model, window.probabilities),
    }


def _unknown(model: WatchedModel, probabilities: NDArray[np.floating]) -> dict[str, float] | None:
    """Return the share of photos unlike every class: those flagged, less what known photos are flagged by design."""
    score = model.predictor.unknown
    if score is None:
        return None
    flagged = float(score.flags(score.score(probabilities)).mean())
    known = 0.05
    error = 1.96 * float(np.sqrt(max(flagged * (1 - flagged), known * (1 - known)) / len(probabilities)))
    share = (flagged - known) / (1 - known)
    low, high = (np.clip((flagged + side * error - known) / (1 - known), 0, 1) for side in (-1, 1))
    return {"share": float(np.clip(share, 0, 1)), "low": float(low), "high": float(high), "flagged": flagged}


def _truth(
    model: WatchedModel, served: Sequence[Served], seen: Seen, truth: Mapping[str, str]
) -> dict[str, Any] | None:
    known = [
        (row, label)
        for row, photo in enumerate(served)
        if (label := truth.get(photo.inference_id) or truth.get(photo.sha256))
    ]
    if not known:
        return None
    answers = seen.photos.probabilities.argmax(axis=1)
    right = sum(model.predictor.classes[answers[row]] == label for row, label in known)
    return _interval(true_accuracy(right, len(known)))


def _interval(found: Estimate | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {"value": found.accuracy, "low": found.low, "high": found.high, "photos": found.photos}


def _worth_reviewing(
    task: Task,
    model: WatchedModel,
    seen: Seen,
    counted: NDArray[np.int64],
    served: Sequence[Served],
    truth: Mapping[str, str],
) -> tuple[NDArray[np.int64], list[str]]:
    rows = np.array(
        [
            row
            for row in counted.tolist()
            if served[row].inference_id not in truth and served[row].sha256 not in truth
        ],
        np.int64,
    )
    if not len(rows) or task.queue <= 0:
        return np.empty(0, np.int64), []
    probabilities = seen.photos.probabilities[rows]
    uncertain = doubt(probabilities)
    score = model.predictor.unknown
    strange = score.score(probabilities) if score else np.zeros(len(rows), np.float32)
    flagged = score.flags(strange) if score else np.zeros(len(rows), bool)
    worth = np.maximum(uncertain, np.where(flagged, strange, 0))
    chosen = choose(worth, seen.photos.embeddings[rows], task.queue)
    why = [
        "unknown" if flagged[row] and strange[row] >= uncertain[row] else "uncertain"
        for row in chosen.tolist()
    ]
    return rows[chosen], why
