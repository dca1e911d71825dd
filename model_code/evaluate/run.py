"""Evaluate a challenger and a champion on the same test photos."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model_code.data.manifest import Manifest
from model_code.data.shards import count_photos
from model_code.evaluate import document as evaluation
from model_code.evaluate.document import Subject
from model_code.evaluate.judging import Judgment, judge
from model_code.evaluate.report.page import Report, render
from model_code.evaluate.report.photos import thumbnails
from model_code.predict.predictor import Predictor
from model_code.process.files import sha256_of
from model_code.process.progress import Progress


@dataclass(frozen=True)
class Judged:
    """A model, its answers and its figures."""

    subject: Subject
    judgment: Judgment
    document: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """Settings of one evaluation."""

    shards: list[Path]
    dataset: dict[str, str] | None
    runtime: str | None
    workers: int
    thumbnails: int
    manifest: Manifest | None = None
    paths: Mapping[str, str] = field(default_factory=dict)

    def seen_by(self, champion: Judged) -> frozenset[str]:
        """Keys of test photos that a champion may have been trained on, because they were moved to the test since."""
        if self.manifest is None:
            return frozenset()
        return self.manifest.seen_by((champion.subject.card.dataset or {}).get("version"))

    def judge(self, model: Path, output: Path, advance: Callable[[int], None]) -> Judged:
        """Judge one model; `predictions.jsonl` goes to `output`.

        Raises:
            BundleError: the model cannot be opened.
            EvaluationError: There are no photos to judge it on.
            ShardError: a shard is damaged.
        """
        output.mkdir(parents=True, exist_ok=True)
        predictor = Predictor.open(model, runtime=self.runtime, threads=1)
        try:
            judgment = judge(
                predictor,
                self.shards,
                self.workers,
                output / "predictions.jsonl",
                paths=self.paths,
                advance=advance,
            )
        finally:
            predictor.close()
        subject = Subject(predictor.card, predictor.runtime.value, digest(model), self.dataset)
        return Judged(subject, judgment, evaluation.evaluate(subject, judgment))

    def write(self, judged: Judged, output: Path) -> None:
        """Write `evaluation.json` and `report.html`."""
        text = json.dumps(judged.document, indent=1, ensure_ascii=False, allow_nan=False)
        (output / "evaluation.json").write_text(text + "\n", encoding="utf-8")
        photos = thumbnails(judged.judgment.worst[: self.thumbnails])
        page = render(Report(judged.document, judged.subject.card, photos))
        (output / "report.html").write_text(page, encoding="utf-8")


def run(job: Job, model: Path, champion: Path | None, output: Path) -> Judged:
    """Judge `model` and `champion` on the same photos, and write everything to `output`."""
    models = 1 if champion is None else 2
    progress = Progress(models * sum(count_photos(shard) for shard in job.shards), "photos")
    ours = job.judge(model, output, progress.advance)
    if champion is not None:
        theirs = job.judge(champion, output / "champion", progress.advance)
        ours.document["comparison"] = evaluation.compare(
            ours.document, ours.judgment, theirs.document, theirs.judgment, job.seen_by(theirs)
        )
        job.write(theirs, output / "champion")
    job.write(ours, output)
    return ours


def digest(model: Path) -> str | None:
    """SHA-256 of an archive; None for a folder."""
    if model.is_dir():
        return None
    return sha256_of(model)
