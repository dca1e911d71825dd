"""The command line of `train`, which `tune` extends, and the job that it describes."""

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from model_code import hyperparameters
from model_code.data.manifest import ManifestError, read_manifest
from model_code.data.shards import ShardError
from model_code.embed.embeddings import EmbeddingsError
from model_code.hyperparameters import HyperparameterError
from model_code.networks.weights import ArchitectureError
from model_code.process.inputs import optional
from model_code.train.distributed import DistributedError, World
from model_code.train.job import Folders, Job
from model_code.train.loop import Diverged

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
"""Errors that a person can fix: printed as one line, without a traceback."""

_OPTIONAL: Final = (
    "weights",
    "calibration",
    "valid_photos",
    "reference_photos",
    "teacher_train",
    "teacher_valid",
    "teacher_weights",
)


def parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    """Return the parser of the command line; SageMaker's SM_* variables provide the default folders."""
    arguments = argparse.ArgumentParser(
        prog="python -m model_code.train",
        description="Fit a classifier on embeddings (--strategy head) or photos (--strategy finetune). "
        "Hyperparameters not given here come from SM_HPS, then from their defaults.",
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
        "reference_photos": "test shards, from which watch's reference is made once the model is; absent: no reference",
        "teacher_train": "the training photos' embeddings by a bigger network, to learn from; absent: no teacher",
        "teacher_valid": "the validation photos' embeddings by that network",
        "teacher_weights": "its weights, whose classifier is the prior of its head; absent: no prior",
    }
    for name, meaning in inputs.items():
        default = Path(environment.get(f"SM_CHANNEL_{name.upper()}", f"/opt/ml/input/data/{name}"))
        group.add_argument(f"--{name}", type=Path, default=default, help=f"{meaning} (default: %(default)s)")
    group.add_argument(
        "--model_dir",
        type=Path,
        default=Path(environment.get("SM_MODEL_DIR", "/opt/ml/model")),
        help="output folder for trial.json or the exported model (default: %(default)s)",
    )
    group.add_argument(
        "--checkpoints",
        type=Path,
        default=_checkpoint_folder(environment),
        help="folder to resume an interrupted run from; absent: no checkpoints (default: %(default)s)",
    )
    group.add_argument(
        "--staging",
        type=Path,
        default=_staging_folder(environment),
        help="local folder for copies of the shards to be read next, where train and valid are mounts of S3; absent: "
        "they are on a disk (default: %(default)s)",
    )
    group.add_argument(
        "--checkpoint_seconds",
        type=float,
        default=30.0,
        help="seconds of work that an interruption may cost (default: %(default)s)",
    )
    return arguments


def _checkpoint_folder(environment: Mapping[str, str]) -> Path | None:
    # SageMaker creates it next to the model folder, and only where the job has a CheckpointConfig.
    folder = Path(environment.get("SM_MODEL_DIR", "/opt/ml/model")).parent / "checkpoints"
    return folder if folder.is_dir() else None


def _staging_folder(environment: Mapping[str, str]) -> Path | None:
    channels = json.loads(environment.get("SM_INPUT_DATA_CONFIG") or "{}")
    mounted = any(channel.get("TrainingInputMode") == "FastFile" for channel in channels.values())
    return Path(tempfile.gettempdir(), "shards") if mounted else None


def job_from(arguments: argparse.Namespace, environment: Mapping[str, str], world: World) -> Job:
    """Return the job that a command line and an environment describe.

    Raises:
        HyperparameterError: A hyperparameter is wrong.
        FileNotFoundError: A given file or folder does not exist.
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
