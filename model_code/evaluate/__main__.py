"""Judge a model on the test split, in the runtime that will serve it: `python -m model_code.evaluate --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model_code.bundle.archive import BundleError
from model_code.data.manifest import ManifestError, read_dataset, read_manifest
from model_code.data.shards import ShardError, shards_in
from model_code.data.versions.looks import read_paths
from model_code.evaluate.judging import EvaluationError
from model_code.evaluate.run import Job, run
from model_code.process.cores import cores
from model_code.process.inputs import optional

_INPUT = Path("/opt/ml/processing/input")
_OUTPUT = Path("/opt/ml/processing/output/evaluation")
_ARCHIVE = "model.tar.gz"
_FAILURES = (BundleError, EvaluationError, ManifestError, ShardError, FileNotFoundError)


def find_model(path: Path) -> Path | None:
    """Find the bundle of a channel: the path itself, or the `model.tar.gz` in it; None if there is none."""
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


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; the defaults are the folders of a SageMaker processing job."""
    arguments = argparse.ArgumentParser(
        prog="python -m model_code.evaluate",
        description="Judge a model on the test split through the serving predictor, and compare it with a champion. "
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
        help="folder of a version, whose files tell the original paths of the photos, or manifest.json; absent: the "
        "report names no data set version (default: %(default)s)",
    )  # fmt: skip
    arguments.add_argument(
        "--output", type=Path, default=_OUTPUT, help="output folder (default: %(default)s)"
    )
    arguments.add_argument(
        "--runtime", choices=["onnx-int8", "onnx", "torch"], help="default: the runtime that will serve"
    )
    arguments.add_argument(
        "--thumbnails", type=int, default=24, metavar="N",
        help="number of worst mistakes shown as thumbnails in report.html; 0 embeds no photo (default: 24)",
    )  # fmt: skip
    arguments.add_argument(
        "--workers",
        type=int,
        default=cores(),
        help="cores to use (default: this job's share, %(default)s)",
    )
    return arguments


def summary(document: dict[str, Any]) -> str:
    """Return the figures as `name=value` pairs on one line."""
    names = ("accuracy", "top5_accuracy", "macro_f1", "log_loss", "photos_per_second")
    values = {f"test_{name}" if "second" not in name else name: document[name] for name in names}
    values["test_ece"] = document["calibration"]["ece_after"]
    return " ".join(f"{name}={value:.6g}" for name, value in values.items() if value is not None)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status: 0, or 1 with the reason on stderr."""
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
        listed = optional(arguments, options, "dataset")
        job = Job(
            shards=shards,
            dataset=read_dataset(listed),
            manifest=read_manifest(listed) if read_dataset(listed) and listed else None,
            runtime=arguments.runtime,
            workers=max(1, arguments.workers),
            thumbnails=max(0, arguments.thumbnails),
            paths=read_paths(listed),
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
