"""The training loop: schedule, early stopping, resumption. A task defines the step."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from model_code.train.checkpoints import Checkpoints
from model_code.train.distributed import World
from model_code.train.metrics import Tally

Metrics = dict[str, float]
Report = Callable[[Metrics], None]


class Diverged(RuntimeError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Schedule:
    """Length and learning-rate schedule of a fit: a linear warm-up, then half a cosine to zero.

    Args:
        epochs: The length of the cosine.
        steps: Optimizer steps per epoch.
        warmup: The fraction of all steps in which the rate rises.
        patience: Stop after this number of epochs without improvement; 0: never.
        stop_after: Epochs to run, or None for all. A refit stops at its trial's best epoch on the same
            cosine, so that its weights see the same rates.
    """

    epochs: int
    steps: int
    warmup: float = 0.0
    patience: int = 0
    stop_after: int | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.steps < 1:
            raise ValueError(f"a fit needs at least one step, not {self.epochs} epochs of {self.steps} steps")

    @property
    def last_epoch(self) -> int:
        """Epochs that are run unless patience ends before."""
        return min(self.epochs, self.stop_after or self.epochs)

    def rate(self, step: int) -> float:
        """Return the factor on every learning rate at step `step` (from 0)."""
        total = self.epochs * self.steps
        rising = int(self.warmup * total)
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / (total - rising)))


class Task(Protocol):
    """A model being fitted. Randomness comes from (seed, epoch, step) alone, so that any step can be repeated."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Its groups hold their peak rate as `peak`."""
        ...

    def train_step(self, epoch: int, step: int) -> Tally:
        """Take one optimizer step; return this rank's loss, hits and photos."""
        ...

    def validate(self) -> Tally | None:
        """Judge this rank's part of the validation photos with the weights that would be kept; None: no photos."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the weights that would be kept now."""
        ...

    def state(self) -> dict[str, Any]:
        """Everything `restore` needs to continue bit for bit: weights, averages, optimizer."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a `state`."""
        ...


@dataclass
class Progress:
    """The progress of a fit: the complete state of the loop."""

    epoch: int = 0
    step: int = 0
    tally: Tally = field(default_factory=Tally)
    history: list[Metrics] = field(default_factory=list)
    kept: Metrics | None = None
    weights: dict[str, Tensor] | None = None
    done: bool = False

    def state(self) -> dict[str, Any]:
        """As plain numbers, lists and tensors."""
        return {**vars(self), "tally": self.tally.numbers()}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> "Progress":
        """Return the inverse of `state`."""
        return cls(**{**state, "tally": Tally(**state["tally"])})


@dataclass(frozen=True)
class Fit:
    """The result of a fit.

    Args:
        metrics: Those of the epoch kept: epoch (from 1), train_loss and, where there were validation photos,
            valid_loss and valid_accuracy.
        weights: Those of the epoch kept.
        history: The metrics of every epoch.
        ran: Epochs that this process ran, without those before the checkpoint it resumed from.
    """

    metrics: Metrics
    weights: dict[str, Tensor]
    history: list[Metrics]
    ran: float

    @property
    def epochs(self) -> int:
        """Epochs that the kept weights were trained for."""
        return int(self.metrics["epoch"])


def run(task: Task, schedule: Schedule, checkpoints: Checkpoints, world: World, report: Report) -> Fit:
    """Fit `task`, from its newest checkpoint where there is one; keep the weights of the best epoch.

    The best epoch is that of the highest validation accuracy, the lower loss deciding a tie; the last where
    there are no validation photos.

    Args:
        task: The model to fit.
        schedule: Its length and learning rates.
        checkpoints: Where to resume from and save to.
        world: The ranks that share the work.
        report: Called on rank 0 with the metrics of each epoch as it ends.

    Raises:
        Diverged: The loss became infinite or not a number before any epoch was kept.
    """
    progress = _resume(task, checkpoints, world)
    resumed = progress.epoch + progress.step / schedule.steps
    for group in task.optimizer.param_groups:
        group.setdefault("peak", group["lr"])
    while not progress.done:
        _run_epoch(task, schedule, checkpoints, progress)
        _close_epoch(task, schedule, world, progress)
        if world.is_main:
            report(progress.history[-1])
        if progress.done or checkpoints.due():
            _save(task, schedule, checkpoints, progress)
    if progress.kept is None or progress.weights is None:
        raise Diverged("the loss is not a number; lower learning_rate")
    return Fit(progress.kept, progress.weights, progress.history, progress.epoch - resumed)


def _resume(task: Task, checkpoints: Checkpoints, world: World) -> Progress:
    # Only rank 0 saves, and on some platforms only its folder survives, so all ranks use what rank 0 finds.
    state = world.from_main(checkpoints.latest() if world.is_main else None)
    if state is None:
        return Progress()
    progress = Progress.of(state["progress"])
    if state["task"] is not None:
        task.restore(state["task"])
    if world.is_main:
        print(f"resuming after epoch {progress.epoch}, step {progress.step}", flush=True)
    else:
        progress.tally = Tally()
    return progress


def _run_epoch(task: Task, schedule: Schedule, checkpoints: Checkpoints, progress: Progress) -> None:
    while progress.step < schedule.steps:
        rate = schedule.rate(progress.epoch * schedule.steps + progress.step)
        for group in task.optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        step = task.train_step(progress.epoch, progress.step)
        progress.tally.add(step.loss, step.correct, step.photos)
        progress.step += 1
        if checkpoints.due():
            _save(task, schedule, checkpoints, progress)


def _close_epoch(task: Task, schedule: Schedule, world: World, progress: Progress) -> None:
    progress.epoch += 1
    progress.step = 0
    train_loss = progress.tally.over(world).mean_loss
    progress.tally = Tally()
    metrics = {"train_loss": train_loss, "epoch": float(progress.epoch)}
    valid = task.validate()
    if valid is not None:
        valid = valid.over(world)
        metrics = {"valid_accuracy": valid.accuracy, "valid_loss": valid.mean_loss, **metrics}
    progress.history.append(metrics)
    diverged = not all(math.isfinite(value) for value in metrics.values())
    if not diverged and (valid is None or _better(metrics, progress.kept)):
        progress.kept, progress.weights = metrics, task.weights()
    waited = progress.epoch - int(progress.kept["epoch"]) if progress.kept else 0
    out_of_patience = 0 < schedule.patience <= waited
    progress.done = diverged or out_of_patience or progress.epoch >= schedule.last_epoch


def _better(metrics: Metrics, kept: Metrics | None) -> bool:
    if kept is None:
        return True
    return (metrics["valid_accuracy"], -metrics["valid_loss"]) > (kept["valid_accuracy"], -kept["valid_loss"])


def _save(task: Task, schedule: Schedule, checkpoints: Checkpoints, progress: Progress) -> None:
    # A finished fit only has to return its result again, not to continue.
    state = {"progress": progress.state(), "task": None if progress.done else task.state()}
    checkpoints.save(progress.epoch * schedule.steps + progress.step, state)
