"""strategy=head: a linear or one-hidden-layer classifier on stored embeddings, seconds of work on a core."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from model_code.hyperparameters import Value
from model_code.networks.classes import ClassRows
from model_code.networks.head import Head
from model_code.train.checkpoints import Checkpoints
from model_code.train.distributed import World
from model_code.train.features import Features
from model_code.train.loop import Fit, Report, Schedule, run
from model_code.train.metrics import Tally
from model_code.train.mixing import Loss, balanced_weights, draw_shares, mixed, partners
from model_code.train.optimizer import decayed

# Up to this size all rows are kept as standardized float32; beyond it, each batch is converted on demand.
_TABLE_BYTES: Final = 512 * 2**20


@dataclass(frozen=True)
class HeadRecipe:
    """The hyperparameters of a head; see `model_code.hyperparameters` for their meaning and limits."""

    epochs: int
    patience: int
    learning_rate: float
    weight_decay: float
    dropout: float
    label_smoothing: float
    mixup: float
    batch_size: int
    hidden: int
    warmup: float
    class_weighting: float
    prior: float
    distillation: float
    teacher_temperature: float
    seed: int

    @classmethod
    def of(cls, values: Mapping[str, Value]) -> Self:
        """From the values that `hyperparameters.resolve` gives."""
        return cls(**{field.name: values[field.name] for field in fields(cls)})  # type: ignore[arg-type]


class HeadTask:
    """Fits a head on features that are all in memory: batches are slices, without a loader.

    Args:
        recipe: The hyperparameters.
        train: Training photos; each epoch draws one view of each. What a teacher says of them joins the loss.
        valid: Validation photos, or None.
        classes: Number of classes.
        world: The ranks that share each batch. Every rank holds all features.
        rows: A classifier of the same classes that the weights bring along. With `recipe.prior` above 0, a linear
            head starts from it and weight decay pulls towards it: the fit learns a correction.
    """

    def __init__(
        self,
        recipe: HeadRecipe,
        train: Features,
        valid: Features | None,
        classes: int,
        world: World,
        rows: ClassRows | None = None,
    ) -> None:
        self._recipe = recipe
        self._world = world
        self._train = train.to(world.device)
        self.head = Head(
            *self._train.spread(), classes, hidden=recipe.hidden, dropout=recipe.dropout, seed=recipe.seed
        ).to(world.device)
        self._table: Tensor | None = None
        if 4 * self._train.rows.numel() <= _TABLE_BYTES:
            self._table = self.head.standardize(self._train.rows.float())
        self._prior = (
            self._set_prior(rows) if rows is not None and recipe.prior and not recipe.hidden else None
        )
        self._model = world.wrap(self.head)
        # AdamW decays towards zero; a decay towards the prior is done by hand.
        decay = recipe.weight_decay if self._prior is None else 0.0
        self.optimizer = torch.optim.AdamW(
            decayed(self.head.parameters(), decay, recipe.learning_rate), lr=recipe.learning_rate, fused=True
        )
        weights = balanced_weights(train.labels, classes, recipe.class_weighting)
        self._loss = Loss(
            recipe.label_smoothing,
            None if weights is None else weights.to(world.device),
            recipe.distillation,
            recipe.teacher_temperature,
        )
        self._taught: Tensor | None = None
        if train.taught is not None and recipe.distillation:
            self._taught = self._loss.soft(train.taught).to(world.device)
        self._valid = valid
        if valid is not None:
            share = world.share(len(valid))
            self._valid_rows = valid.evaluation()[share].to(world.device)
            self._valid_labels = valid.labels[share].to(world.device)
        self.steps = max(1, round(len(train) / recipe.batch_size))
        self._epoch = -1
        self._batches: list[np.ndarray] = []

    @torch.no_grad()
    def _set_prior(self, rows: ClassRows) -> Tensor:
        """Start the head from `rows`; returns their weights on standardized embeddings, [classes, dim].

        What all classes share does not change an answer, and is taken out.
        """
        head, strength = self.head, self._recipe.prior
        device = head.scale.device
        weight, bias = (
            rows.weight.to(device) / head.scale,
            rows.bias.to(device) + rows.weight.to(device) @ head.mean,
        )
        head.output.weight.copy_(strength * (weight - weight.mean(0)))
        head.output.bias.copy_(strength * (bias - bias.mean()))
        return head.output.weight.detach().clone()

    def schedule(self, stop_after: int | None = None) -> Schedule:
        """Return the schedule of the recipe; see `Schedule.stop_after`."""
        recipe = self._recipe
        return Schedule(recipe.epochs, self.steps, recipe.warmup, recipe.patience, stop_after)

    def train_step(self, epoch: int, step: int) -> Tally:
        """Take one step on this rank's share of the global batch."""
        batch = self._batch(epoch, step)
        generator = np.random.default_rng([self._recipe.seed, epoch, step, 1])
        draws = torch.from_numpy(generator.integers(0, 2**31, len(batch)))
        shares = draw_shares(generator, len(batch), self._recipe.mixup)
        masks = self.head.draw_masks(generator, len(batch))
        mine = self._world.share(len(batch))
        device = self._world.device
        photos = torch.from_numpy(batch[mine]).to(device)
        rows, labels, partner_labels, share = self._mixed(
            photos, draws[mine].to(device), shares[mine].to(device)
        )
        logits = self._model(rows, tuple(mask[mine].to(device) for mask in masks), standardized=True)
        taught = None if self._taught is None else mixed(self._taught[photos], share)
        losses = self._loss(logits, labels, partner_labels, share, taught)
        # DDP averages gradients over ranks: scale so that the result is the mean over the global batch.
        loss = losses.sum() * (self._world.size / len(batch))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self._prior is not None:
            rate = min(1.0, self._recipe.weight_decay * self.optimizer.param_groups[0]["lr"])
            with torch.no_grad():
                self.head.output.weight.lerp_(self._prior, rate)
        self.optimizer.step()
        return Tally(float(losses.detach().sum()), 0.0, len(photos))

    def _batch(self, epoch: int, step: int) -> np.ndarray:
        if epoch != self._epoch:
            order = np.random.default_rng([self._recipe.seed, epoch]).permutation(len(self._train))
            # Even cuts: no batch has only a photo or two, whose gradient would be noise.
            self._batches = np.array_split(order, self.steps)
            self._epoch = epoch
        return self._batches[step]

    def _mixed(self, photos: Tensor, draws: Tensor, share: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Standardized rows, mixed with their partners', then labels, partners' labels and shares."""
        train = self._train
        labels = train.labels[photos]
        rows = train.first[photos] + draws % train.views[photos]
        if self._recipe.mixup <= 0:
            return self._rows(rows), labels, labels, share
        partner = partners(len(photos), photos.device)
        if self._table is None:
            mixed = torch.lerp(self._rows(rows[partner]), self._rows(rows), share[:, None])
        else:
            # Fetches and mixes in one pass over memory.
            pairs, weights = torch.stack([rows, rows[partner]], 1), torch.stack([share, 1 - share], 1)
            mixed = functional.embedding_bag(pairs, self._table, per_sample_weights=weights, mode="sum")
        return mixed, labels, labels[partner], share

    def _rows(self, rows: Tensor) -> Tensor:
        if self._table is not None:
            return self._table.index_select(0, rows)
        return self.head.standardize(self._train.rows.index_select(0, rows).float())

    @torch.no_grad()
    def validate(self) -> Tally | None:
        """This rank's share of the validation photos."""
        if self._valid is None:
            return None
        tally = Tally()
        tally.add_logits(self.head(self._valid_rows), self._valid_labels)
        return tally

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the head's weights, on the CPU."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.head.state_dict().items()}

    def state(self) -> dict[str, Any]:
        """Weights and optimizer; everything else follows from the step number."""
        return {"head": self.weights(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a `state`."""
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])


def fit_head(
    recipe: HeadRecipe,
    train: Features,
    valid: Features | None,
    classes: int,
    world: World,
    checkpoints: Checkpoints,
    report: Report,
    stop_after: int | None = None,
    rows: ClassRows | None = None,
) -> tuple[Head, Fit]:
    """Fit a head and return it, on the CPU, with the weights of the best epoch. See `HeadTask` and `loop.run`."""
    task = HeadTask(recipe, train, valid, classes, world, rows)
    fit = run(task, task.schedule(stop_after), checkpoints, world, report)
    head = task.head.cpu()
    head.load_state_dict(fit.weights)
    return head.eval(), fit
