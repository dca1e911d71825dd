"""Train a classifier: `python -m model_code.train --help`.

A trial fits a recipe on the training photos, judges it on the validation photos and prints the objective. A
final run fits the same, calibrates on the validation photos, fits again on both for as many epochs, and
exports the model.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import torch

from model_code import distributed, hyperparameters
from model_code.architectures import ArchitectureError
from model_code.calibration import calibrate
from model_code.code_version import code_version
from model_code.cores import cores
from model_code.distributed import DistributedError, World
from model_code.embeddings import EmbeddingsError
from model_code.fitting import Diverged
from model_code.hyperparameters import HyperparameterError, Strategy
from model_code.inputs import optional
from model_code.manifest import Manifest, ManifestError
from model_code.metrics import finite, log_metrics
from model_code.shards import ShardError, shards_in
from model_code.train_job import Folders, Job, Judged, Refit, Refitted

SCHEMA_VERSION: Final = 1
FAILURES: Final = (
    ArchitectureError,
    Diverged,
    DistributedError,
    EmbeddingsError,
    FileNotFoundError,
    HyperparameterError,
    ManifestError,
    ShardError,
)
_OPTIONAL: Final = ("weights", "calibration", "valid_photos")


def run(job: Job) -> Judged:
    """Fit, report, and write what the mode asks for into `model_dir`."""
    started = time.monotonic()
    judged, refit = _strategy(job)(job)
    seconds = time.monotonic() - started
    if job.final:
        _export(job, judged, refit())
    if job.world.is_main:
        if not job.final:
            _write_trial(job, judged)
        # SageMaker takes the last value of a metric, so the epoch kept is printed last.
        log_metrics(**judged.fit.metrics)
        if judged.fit.ran > 0:  # a fit that had ended before it was interrupted has no rate
            log_metrics(photos_per_second=judged.photos * judged.fit.ran / max(seconds, 1e-9))
    return judged


def judge(job: Job) -> Judged:
    """Fit the job's recipe on the training photos and judge it on the validation photos; write nothing."""
    judged, _ = _strategy(job)(job)
    return judged


def data_identity(job: Job) -> tuple[str, ...]:
    """Names what the job trains on and starts from, so that figures of other data are never taken for its own.

    What it reads for that stays in memory: trials in threads then find it there, instead of all reading it at once.
    """
    if job.values["strategy"] == Strategy.HEAD:
        from model_code.train_head import identity

        return identity(job)
    from model_code.train_finetune import identity as identity_finetune

    return identity_finetune(job)


def _strategy(job: Job) -> Callable[[Job], tuple[Judged, Refit]]:
    if job.values["strategy"] == Strategy.HEAD:
        from model_code.train_head import prepare

        return prepare
    from model_code.train_finetune import prepare as prepare_finetune

    return prepare_finetune


def _write_trial(job: Job, judged: Judged) -> None:
    job.folders.model_dir.mkdir(parents=True, exist_ok=True)
    trial = {
        "schema_version": SCHEMA_VERSION,
        "hyperparameters": dict(job.values),
        "metrics": judged.fit.metrics,
        "history": finite(judged.fit.history),
        "dataset": {"name": job.manifest.name, "version": job.manifest.version},
        "code_version": code_version(),
    }
    (job.folders.model_dir / "trial.json").write_text(
        json.dumps(trial, indent=1, allow_nan=False) + "\n"
    )


def _export(job: Job, judged: Judged, refitted: Refitted) -> None:
    if not job.world.is_main:
        return
    from model_code.export import export_bundle

    calibration = calibrate(judged.logits.numpy(), judged.labels.numpy())
    log_metrics(temperature=calibration.temperature, abstain_threshold=calibration.abstain_threshold)
    export_bundle(
        output=job.folders.model_dir,
        model=refitted.model,
        reference_model=refitted.reference,
        card={
            "name": job.manifest.name,
            "architecture": str(job.values["architecture"]),
            "classes": list(job.manifest.classes),
            "transform": refitted.transform,
            "temperature": calibration.temperature,
            "abstain_threshold": calibration.abstain_threshold,
            "metrics": {**judged.fit.metrics, "history": judged.fit.history},
            "hyperparameters": dict(job.values),
            "dataset": {"name": job.manifest.name, "version": job.manifest.version},
            "embedder_id": refitted.embedder_id,
            "weights_sha256": refitted.weights_sha256,
            "code_version": code_version(),
        },
        calibration_shards=_shards(job.folders.calibration),
        valid_shards=_shards(job.folders.valid_photos),
    )


def _shards(folder: Path | None) -> list[Path]:
    return shards_in(folder) if folder is not None else []


def parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    """The command line; SageMaker's SM_* variables fill the defaults of the folders."""
    arguments = argparse.ArgumentParser(
        prog="python -m model_code.train",
        description="Fit a classifier on embeddings (--strategy head) or photos (--strategy finetune). "
        "Hyperparameters that are not given come from SM_HPS, then from their defaults.",
    )
    hyperparameters.add_arguments(arguments)
    group = arguments.add_argument_group("files")
    inputs = {
        "train": "training channel: embeddings for head, shards for finetune",
        "valid": "validation channel, of the same kind",
        "dataset": "manifest.json, or the folder that holds it",
        "weights": "state_dict file, or the folder that holds it; absent: an untrained backbone",
        "calibration": "training shards for int8 calibration; absent: no int8 model",
        "valid_photos": "validation shards for judging the int8 model; absent: no int8 model",
    }
    for name, meaning in inputs.items():
        default = Path(environment.get(f"SM_CHANNEL_{name.upper()}", f"/opt/ml/input/data/{name}"))
        group.add_argument(f"--{name}", type=Path, default=default, help=f"{meaning} (default: %(default)s)")
    group.add_argument(
        "--model_dir",
        type=Path,
        default=Path(environment.get("SM_MODEL_DIR", "/opt/ml/model")),
        help="where trial.json or the exported model goes (default: %(default)s)",
    )
    group.add_argument(
        "--checkpoints",
        type=Path,
        default=_checkpoint_folder(environment),
        help="where an interrupted run is resumed from; absent: nowhere (default: %(default)s)",
    )
    group.add_argument(
        "--checkpoint_seconds",
        type=float,
        default=30.0,
        help="seconds of work that an interruption may cost (default: %(default)s)",
    )
    return arguments


def _checkpoint_folder(environment: Mapping[str, str]) -> Path | None:
    # SageMaker creates it beside the model folder, and only where the job has a CheckpointConfig.
    folder = Path(environment.get("SM_MODEL_DIR", "/opt/ml/model")).parent / "checkpoints"
    return folder if folder.is_dir() else None


def read_manifest(path: Path) -> Manifest:
    """The manifest at `path`, a file or a folder with manifest.json.

    Raises:
        FileNotFoundError: There is none.
        ManifestError: It is damaged.
    """
    file = path / "manifest.json" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"no manifest.json at {path}; give the data set's manifest with --dataset")
    return Manifest.from_json(file.read_text())


def job_from(arguments: argparse.Namespace, environment: Mapping[str, str], world: World) -> Job:
    """The job that a command line and an environment describe.

    Raises:
        HyperparameterError: A hyperparameter is wrong.
        FileNotFoundError: A file or folder that was given is not there.
    """
    given = hyperparameters.from_environment(environment) | hyperparameters.from_arguments(arguments)
    folders = {name: getattr(arguments, name) for name in Folders.__dataclass_fields__}
    options = parser(environment)
    folders |= {name: optional(arguments, options, name) for name in _OPTIONAL}
    return Job(
        values=hyperparameters.resolve(given),
        folders=Folders(**folders),
        manifest=read_manifest(arguments.dataset),
        world=world,
        checkpoint_seconds=arguments.checkpoint_seconds,
    )


def limit_threads(environment: Mapping[str, str]) -> None:
    """Use the job's share of the cores; torch itself obeys OMP_NUM_THREADS."""
    if "OMP_NUM_THREADS" not in environment:
        torch.set_num_threads(cores())


def main(argv: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """The command; the exit status: 0, or 1 with the reason on stderr."""
    environment = os.environ if environment is None else environment
    arguments = parser(environment).parse_args(argv)
    limit_threads(environment)
    try:
        with distributed.join(environment) as world:
            run(job_from(arguments, environment, world))
    except FAILURES as error:
        print(f"train: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
