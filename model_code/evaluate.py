"""Judge a model on the test split, in the runtime that will serve it: `python -m model_code.evaluate --help`."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_code import evaluation
from model_code.bundle import BundleError
from model_code.cores import cores
from model_code.evaluation import Subject
from model_code.inputs import optional
from model_code.judging import EvaluationError, Judgement, judge
from model_code.manifest import Manifest, ManifestError
from model_code.progress import Progress
from model_code.report import Report, render
from model_code.report_photos import thumbnails
from model_code.serve.predictor import Predictor
from model_code.shards import ShardError, count_photos, shards_in

_INPUT = Path("/opt/ml/processing/input")
_OUTPUT = Path("/opt/ml/processing/output/evaluation")
_ARCHIVE = "model.tar.gz"
_FAILURES = (BundleError, EvaluationError, ManifestError, ShardError, FileNotFoundError)


@dataclass(frozen=True)
class Judged:
    """A model, what it answered, and the figures."""

    subject: Subject
    judgement: Judgement
    document: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One evaluation: what to judge on, with what, and where results go."""

    shards: list[Path]
    dataset: dict[str, str] | None
    runtime: str | None
    workers: int
    thumbnails: int

    def judge(self, model: Path, output: Path, advance: Callable[[int], None]) -> Judged:
        """Judge one model; `predictions.jsonl` goes to `output`.

        Raises:
            BundleError: the model cannot be opened.
            EvaluationError: there is no photo to judge it on.
            ShardError: a shard is damaged.
        """
        output.mkdir(parents=True, exist_ok=True)
        predictor = Predictor.open(model, runtime=self.runtime, threads=1)
        try:
            judgement = judge(
                predictor, self.shards, self.workers, output / "predictions.jsonl", advance=advance
            )
        finally:
            predictor.close()
        subject = Subject(predictor.card, predictor.runtime.value, digest(model), self.dataset)
        return Judged(subject, judgement, evaluation.evaluate(subject, judgement))

    def write(self, judged: Judged, output: Path) -> None:
        """`evaluation.json` and `report.html`."""
        text = json.dumps(judged.document, indent=1, ensure_ascii=False, allow_nan=False)
        (output / "evaluation.json").write_text(text + "\n", encoding="utf-8")
        photos = thumbnails(judged.judgement.worst[: self.thumbnails])
        page = render(Report(judged.document, judged.subject.card, photos))
        (output / "report.html").write_text(page, encoding="utf-8")


def run(job: Job, model: Path, champion: Path | None, output: Path) -> Judged:
    """Judge `model`, and `champion` beside it, and write everything to `output`."""
    models = 1 if champion is None else 2
    progress = Progress(models * sum(count_photos(shard) for shard in job.shards), "photos")
    ours = job.judge(model, output, progress.advance)
    if champion is not None:
        theirs = job.judge(champion, output / "champion", progress.advance)
        ours.document["comparison"] = evaluation.compare(
            ours.document, ours.judgement, theirs.document, theirs.judgement
        )
        job.write(theirs, output / "champion")
    job.write(ours, output)
    return ours


def digest(model: Path) -> str | None:
    """SHA-256 of an archive; None for a folder."""
    if model.is_dir():
        return None
    with model.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def find_model(path: Path) -> Path | None:
    """The bundle that a channel holds: the path itself, or the `model.tar.gz` in it; None where there is nothing."""
    if path.is_file() or (path / "model.json").is_file():
        return path
    archives = sorted(path.glob("*.tar.gz")) if path.is_dir() else []
    if len(archives) > 1:
        raise EvaluationError(f"{path} holds {len(archives)} archives: leave one model in it")
    return archives[0] if archives else None


def _the_model(path: Path, name: str) -> Path:
    model = find_model(path)
    if model is None:
        raise EvaluationError(f"{path} holds no model: give --{name} a model.tar.gz")
    return model


def read_dataset(path: Path | None) -> dict[str, str] | None:
    """Name and version from a `manifest.json` or the folder that holds one; None where there is none.

    Raises:
        ManifestError: it is damaged.
    """
    file = path / "manifest.json" if path is not None and path.is_dir() else path
    if file is None or not file.is_file():
        return None
    manifest = Manifest.from_json(file.read_text(encoding="utf-8"))
    return {"name": manifest.name, "version": manifest.version}


def parser() -> argparse.ArgumentParser:
    """The command line; its defaults are SageMaker's folders of a processing job."""
    arguments = argparse.ArgumentParser(
        prog="python -m model_code.evaluate",
        description="Judge a model on the test split through the serving predictor, and a champion beside it. "
        "Writes evaluation.json, predictions.jsonl and report.html, and the champion's under champion/.",
    )
    arguments.add_argument(
        "--model", type=Path, default=_INPUT / "model",
        help="model.tar.gz, the folder that holds it, or an unpacked bundle (default: %(default)s)",
    )  # fmt: skip
    arguments.add_argument(
        "--champion", type=Path, default=_INPUT / "champion",
        help="the model in service, as --model; absent: no comparison (default: %(default)s)",
    )  # fmt: skip
    arguments.add_argument(
        "--test",
        type=Path,
        default=_INPUT / "test",
        help="folder with the test shards (default: %(default)s)",
    )
    arguments.add_argument(
        "--dataset", type=Path, default=_INPUT / "dataset",
        help="manifest.json or its folder; absent: the report names no data set version (default: %(default)s)",
    )  # fmt: skip
    arguments.add_argument(
        "--output", type=Path, default=_OUTPUT, help="where results go (default: %(default)s)"
    )
    arguments.add_argument(
        "--runtime", choices=["onnx-int8", "onnx", "torch"], help="default: the one that will serve"
    )
    arguments.add_argument(
        "--thumbnails", type=int, default=24, metavar="N",
        help="worst mistakes shown as small photos in report.html; 0: no photo leaves the shards (default: 24)",
    )  # fmt: skip
    arguments.add_argument(
        "--workers",
        type=int,
        default=cores(),
        help="cores to use (default: this job's share, %(default)s)",
    )
    return arguments


def summary(document: dict[str, Any]) -> str:
    """The figures as `name=value` on one line."""
    names = ("accuracy", "top5_accuracy", "macro_f1", "log_loss", "photos_per_second")
    values = {f"test_{name}" if "second" not in name else name: document[name] for name in names}
    values["test_ece"] = document["calibration"]["ece_after"]
    return " ".join(f"{name}={value:.6g}" for name, value in values.items() if value is not None)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status: 0, or 1 with the reason on stderr."""
    options = parser()
    arguments = options.parse_args(argv)
    try:
        model = _the_model(arguments.model, "model")
        champion = optional(arguments, options, "champion")
        shards = shards_in(arguments.test) if arguments.test.is_dir() else []
        if not shards:
            raise EvaluationError(
                f"{arguments.test} holds no shards: give --test the folder of the test split"
            )
        job = Job(
            shards=shards,
            dataset=read_dataset(optional(arguments, options, "dataset")),
            runtime=arguments.runtime,
            workers=max(1, arguments.workers),
            thumbnails=max(0, arguments.thumbnails),
        )
        judged = run(job, model, champion and _the_model(champion, "champion"), arguments.output)
    except _FAILURES as error:
        print(f"evaluate: {error}", file=sys.stderr, flush=True)
        return 1
    print(f"runtime={judged.subject.runtime}", flush=True)
    print(summary(judged.document), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
