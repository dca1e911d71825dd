"""Run a bundle over test shards through the serving predictor: outcomes, predictions.jsonl, latency."""

from __future__ import annotations

import heapq
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_code.data.photos import PhotoError
from model_code.data.shards import Sample, read_shard
from model_code.evaluate.scores import UNKNOWN, Outcomes
from model_code.predict.predictor import Predictor
from model_code.process.parallel import ordered_map

BATCH = 16
LATENCY_PHOTOS = 100
_WARM_UP = 5


class EvaluationError(RuntimeError):
    """The model cannot be judged; the message is one line that names the fix."""


class Mistake(NamedTuple):
    """A wrong answer; ordered by confidence."""

    confidence: float
    key: str
    label: str
    prediction: str
    likelihood: float
    photo: bytes
    path: str = ""


@dataclass(frozen=True)
class Latency:
    """Milliseconds from a photo's bytes to its probabilities, one photo at a time on one core."""

    p50: float
    p99: float
    photos: int


@dataclass(frozen=True)
class Judgment:
    """A model's answers on the test photos, in shard order.

    Args:
        keys: of the photos that could be read.
        outcomes: the same photos.
        unreadable: (key, reason) of those that could not; they count nowhere.
        unknown: photos per class that the model was never taught; each counts as wrong.
        worst: the most confident mistakes, worst first.
        latency: of a single photo.
        photos_per_second: over the whole pass, on every core.
    """

    keys: list[str]
    outcomes: Outcomes
    unreadable: list[tuple[str, str]]
    unknown: dict[str, int]
    worst: list[Mistake]
    latency: Latency
    photos_per_second: float


class _Answered(NamedTuple):
    samples: list[Sample]
    logits: NDArray[np.float32]
    unreadable: list[tuple[str, str]]


def judge(
    predictor: Predictor,
    shards: Sequence[Path],
    workers: int,
    lines: Path | None = None,
    worst: int = 24,
    paths: Mapping[str, str] | None = None,
    advance: Callable[[int], None] = lambda photos: None,
) -> Judgment:
    """Predict every photo of `shards`.

    Photos are decoded and answered on `workers` cores at once, a batch each; memory holds a few batches, whatever the
    number of photos.

    Args:
        predictor: Opened with one thread, so that each batch runs on its own core.
        shards: The shards of the test split.
        workers: Cores to use.
        lines: Path of predictions.jsonl.
        worst: Number of mistakes to keep with their photos.
        paths: Original paths of the photos, by key.
        advance: Called with the number of photos just finished.

    Raises:
        EvaluationError: No photo can be read.
    """
    tally = _Tally(predictor, worst, paths or {})
    started = time.monotonic()
    with lines.open("w", encoding="utf-8") if lines else nullcontext() as file:
        batches = _batches(sample for shard in shards for sample in read_shard(shard))
        for answered in ordered_map(lambda batch: _answer(predictor, batch), batches, workers):
            tally.add(answered, file)
            advance(len(answered.samples) + len(answered.unreadable))
    seconds = time.monotonic() - started
    if not tally.keys:
        raise EvaluationError(
            "no test photo could be read: give --test a folder with the shards of the test split"
        )
    return Judgment(
        keys=tally.keys,
        outcomes=Outcomes.join(tally.parts),
        unreadable=tally.unreadable,
        unknown=tally.unknown,
        worst=sorted(tally.worst, reverse=True),
        latency=measure_latency(predictor, shards),
        photos_per_second=len(tally.keys) / max(seconds, 1e-9),
    )


class _Tally:
    """Accumulates the results of a pass over the photos."""

    def __init__(self, predictor: Predictor, worst: int, paths: Mapping[str, str]) -> None:
        self.keys: list[str] = []
        self.parts: list[Outcomes] = []
        self.unreadable: list[tuple[str, str]] = []
        self.unknown: dict[str, int] = {}
        self.worst: list[Mistake] = []
        self._predictor = predictor
        self._paths = paths
        self._index = {name: number for number, name in enumerate(predictor.classes)}
        self._limit = worst

    def add(self, answered: _Answered, file: IO[str] | None) -> None:
        self.unreadable.extend(answered.unreadable)
        if not answered.samples:
            return
        names = [sample.label for sample in answered.samples]
        labels = np.array([self._index.get(name, UNKNOWN) for name in names], np.int64)
        outcomes = Outcomes.of(answered.logits, labels, self._predictor.card.temperature)
        self.keys.extend(sample.key for sample in answered.samples)
        self.parts.append(outcomes)
        for name in names:
            if name not in self._index:
                self.unknown[name] = self.unknown.get(name, 0) + 1
        self._remember_mistakes(answered.samples, outcomes)
        if file is not None:
            file.writelines(self._lines(answered, outcomes))

    def _lines(self, answered: _Answered, outcomes: Outcomes) -> Iterator[str]:
        rows = np.round(self._predictor.probabilities(answered.logits).astype(np.float64), 6).tolist()
        for sample, prediction, row in zip(answered.samples, outcomes.predictions, rows, strict=True):
            line = {
                "key": sample.key,
                "label": sample.label,
                "prediction": self._predictor.classes[prediction],
                **({"path": path} if (path := self._paths.get(sample.key)) else {}),
                "probabilities": row,
            }
            yield json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n"

    def _remember_mistakes(self, samples: Sequence[Sample], outcomes: Outcomes) -> None:
        for at in np.flatnonzero(~outcomes.hits).tolist():
            sample = samples[at]
            mistake = Mistake(
                confidence=float(outcomes.confidence[at]),
                key=sample.key,
                label=sample.label,
                prediction=self._predictor.classes[outcomes.predictions[at]],
                likelihood=float(outcomes.likelihood[at]),
                photo=sample.data,
                path=self._paths.get(sample.key, ""),
            )
            heapq.heappush(self.worst, mistake)
            if len(self.worst) > self._limit:
                heapq.heappop(self.worst)


def _batches(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    iterator = iter(samples)
    while batch := list(islice(iterator, BATCH)):
        yield batch


def _answer(predictor: Predictor, samples: list[Sample]) -> _Answered:
    try:
        return _Answered(samples, predictor.logits([sample.data for sample in samples]), [])
    except PhotoError:
        pass
    # One of them cannot be read: predict one by one, so that the others are unaffected.
    readable: list[Sample] = []
    rows: list[NDArray[np.float32]] = [np.empty((0, len(predictor.classes)), np.float32)]
    unreadable: list[tuple[str, str]] = []
    for sample in samples:
        try:
            rows.append(predictor.logits([sample.data]))
            readable.append(sample)
        except PhotoError as error:
            unreadable.append((sample.key, str(error)))
    return _Answered(readable, np.concatenate(rows), unreadable)


def measure_latency(predictor: Predictor, shards: Sequence[Path], photos: int = LATENCY_PHOTOS) -> Latency:
    """Time `photos` single predictions, after a few to warm up."""
    milliseconds: list[float] = []
    samples = (sample for shard in shards for sample in read_shard(shard))
    for sample in islice(samples, photos + _WARM_UP):
        started = time.perf_counter()
        try:
            predictor.predict([sample.data])
        except PhotoError:
            continue
        milliseconds.append(1000 * (time.perf_counter() - started))
    timed = sorted(milliseconds[_WARM_UP:] or milliseconds)
    p99 = timed[min(len(timed) - 1, round(0.99 * (len(timed) - 1)))]
    return Latency(statistics.median(timed), p99, len(timed))
