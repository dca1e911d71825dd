"""Inputs of a run of `train`, and the results of a strategy."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from model_code.data.manifest import Manifest
from model_code.data.shards import Split, shards_in
from model_code.data.transform import Transform
from model_code.hyperparameters import Mode, Value
from model_code.process.progress import Progress
from model_code.train.checkpoints import Checkpoints
from model_code.train.distributed import World
from model_code.train.loop import Fit, Metrics, Report
from model_code.train.metrics import log_metrics


@dataclass(frozen=True)
class Folders:
    """Folders that a run reads and writes; each defaults to SageMaker's path for it. None: not given.

    Shards are copied to `staging` shortly before they are read; None: they are on a disk.
    """

    train: Path
    valid: Path
    dataset: Path
    weights: Path | None
    calibration: Path | None
    valid_photos: Path | None
    reference_photos: Path | None
    teacher_train: Path | None
    teacher_valid: Path | None
    teacher_weights: Path | None
    model_dir: Path
    checkpoints: Path | None
    staging: Path | None = None


@dataclass(frozen=True)
class Job:
    """One run of `train`: checked hyperparameters, folders, the data set, the ranks that share the work."""

    values: Mapping[str, Value]
    folders: Folders
    manifest: Manifest
    world: World
    checkpoint_seconds: float = 30.0

    def shards(self, folder: Path | None, split: Split) -> list[Path]:
        """Return the shards of a split in the folder of its channel; none without one."""
        return shards_in(folder, self.named(split)) if folder else []

    def named(self, split: Split) -> frozenset[str]:
        """Return the SHA-256 digests of the shards of a split."""
        return frozenset(row.sha256 for row in self.manifest.of(split))

    @property
    def classes(self) -> int:
        """Number of classes in the data set."""
        return len(self.manifest.classes)

    @property
    def final(self) -> bool:
        """True if the model will be exported."""
        return self.values["mode"] == Mode.FINAL

    def checkpoints(self, identity: str) -> Checkpoints:
        """Return the checkpoints of the fit with this fingerprint."""
        return Checkpoints(
            self.folders.checkpoints, identity, seconds=self.checkpoint_seconds, writes=self.world.is_main
        )

    def reporter(self, epochs: int) -> Report:
        """Create a callback that prints the metrics of an epoch and the progress of the fit."""
        progress = Progress(epochs, "epochs")

        def report(metrics: Metrics) -> None:
            log_metrics(**metrics)
            progress.advance(int(metrics["epoch"]) - progress.done)

        return report


@dataclass(frozen=True)
class Judged:
    """A recipe fitted on the training photos alone.

    Args:
        fit: Its epochs and metrics.
        logits: Of the validation photos, [photos, classes]; on rank 0.
        labels: Their classes, [photos].
        photos: How many photos an epoch passed over.
    """

    fit: Fit
    logits: Tensor
    labels: Tensor
    photos: int


@dataclass(frozen=True)
class Refitted:
    """The same recipe refitted on training and validation photos, as whole networks on the CPU.

    Args:
        model: The one to serve: normalized photos [n, 3, h, w] to logits.
        reference: The one fitted on the training photos alone, for judging what export does to accuracy.
        transform: How photos become its input.
        embedder_id: The id of the embeddings it was trained on, if any.
        weights_sha256: Of the weights it started from, if any.
    """

    model: nn.Module
    reference: nn.Module
    transform: Transform
    embedder_id: str | None
    weights_sha256: str | None


Refit = Callable[[], Refitted]
