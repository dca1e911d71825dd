"""strategy=head: a linear or one-hidden-layer classifier on stored embeddings, seconds of work on a core."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from model_code.checkpoints import Checkpoints
from model_code.distributed import World
from model_code.features import Features
from model_code.fitting import Fit, Report, Schedule, run
from model_code.hyperparameters import Value
from model_code.metrics import Tally
from model_code.mixing import Loss, balanced_weights, draw_shares, partners

# Up to this size all rows are kept as standardised float32; beyond, each batch is converted when it is
# needed.
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
    seed: int

    @classmethod
    def of(cls, values: Mapping[str, Value]) -> Self:
        """From the values that `hyperparameters.resolve` gives."""
        return cls(**{field.name: values[field.name] for field in fields(cls)})  # type: ignore[arg-type]


class Head(nn.Module):
    """Standardise, drop, optionally one hidden layer with ReLU, classify: embeddings [n, dim] to logits [n,
    classes].

    Args:
        mean: Subtracted from each embedding, [dim].
        deviation: Then divides it, [dim].
        classes: How many.
        hidden: Width of the hidden layer; 0: none.
        dropout: Fraction dropped before each linear layer.
        seed: Draws the weights of the hidden layer. The last layer starts at zero: every class equally
        likely.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        mean: Tensor,
        deviation: Tensor,
        classes: int,
        *,
        hidden: int = 0,
        dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.register_buffer("mean", mean.clone())
        self.register_buffer("scale", 1 / deviation)
        self.hidden = nn.Linear(len(mean), hidden) if hidden else None
        self.output = nn.Linear(hidden or len(mean), classes)
        if self.hidden is not None:
            # A generator of its own: trials of a packed search share torch's between threads.
            nn.init.kaiming_uniform_(
                self.hidden.weight, nonlinearity="relu", generator=torch.Generator().manual_seed(seed)
            )
            nn.init.zeros_(self.hidden.bias)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    @property
    def dim(self) -> int:
        """Numbers per embedding."""
        return len(self.mean)

    def standardise(self, embeddings: Tensor) -> Tensor:
        """Mean 0 and deviation 1 in every dimension, as over the training rows."""
        return (embeddings - self.mean) * self.scale

    def forward(
        self, embeddings: Tensor, masks: tuple[Tensor, ...] = (), *, standardised: bool = False
    ) -> Tensor:
        """Logits [n, classes].

        Args:
            embeddings: [n, dim].
            masks: Drop inputs, one mask per linear layer; see `draw_masks`.
            standardised: Whether `embeddings` went through `standardise` already.
        """
        x = embeddings if standardised else self.standardise(embeddings)
        if masks:
            x = x * masks[0]
        if self.hidden is not None:
            x = functional.relu(self.hidden(x))
            if masks:
                x = x * masks[1]
        return self.output(x)

    def draw_masks(self, generator: np.random.Generator, count: int) -> tuple[Tensor, ...]:
        """Dropout masks for a global batch of `count`, each [count, width]: 0, or 1 / the probability of
        staying.

        They are drawn for the whole batch on every rank, which then takes its share: so one process or
        several drop the same. A byte per element is enough to draw from, and ten times faster than a float.
        """
        threshold = round(256 * self.dropout)
        if threshold == 0:
            return ()
        widths = [layer.in_features for layer in (self.hidden, self.output) if layer is not None]
        draws = (
            np.frombuffer(generator.bytes(count * width), np.uint8).reshape(count, width) for width in widths
        )
        return tuple(
            torch.from_numpy(draw >= threshold).float().mul_(256 / (256 - threshold)) for draw in draws
        )

    def folded(self) -> nn.Module:
        """The same function without standardisation: a Linear, or Linear, ReLU, Linear. For export."""
        first = self.hidden if self.hidden is not None else self.output
        folded = nn.Linear(first.in_features, first.out_features)
        with torch.no_grad():
            weight = first.weight.double() * self.scale.double()
            folded.weight.copy_(weight)
            folded.bias.copy_(first.bias.double() - weight @ self.mean.double())
        if self.hidden is None:
            return folded
        output = nn.Linear(self.output.in_features, self.output.out_features)
        output.load_state_dict(self.output.state_dict())
        return nn.Sequential(folded, nn.ReLU(), output)


def decayed(module: nn.Module, weight_decay: float, rate: float) -> list[dict[str, Any]]:
    """Parameter groups for AdamW: matrices are decayed, biases and norms are not."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {
            "params": [p for p in trained if p.ndim > 1],
            "weight_decay": weight_decay,
            "lr": rate,
            "peak": rate,
        },
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0, "lr": rate, "peak": rate},
    ]


class HeadTask:
    """Fits a head on features that are all in memory: batches are slices, so there is no loader to wait for.

    Args:
        recipe: The hyperparameters.
        train: Training photos; each epoch draws one view of each.
        valid: Validation photos, or None.
        classes: How many.
        world: The ranks that share each batch. Every rank holds all features.
    """

    def __init__(
        self, recipe: HeadRecipe, train: Features, valid: Features | None, classes: int, world: World
    ) -> None:
        self._recipe = recipe
        self._world = world
        self._train = train.to(world.device)
        self.head = Head(
            *self._train.spread(), classes, hidden=recipe.hidden, dropout=recipe.dropout, seed=recipe.seed
        ).to(world.device)
        self._table: Tensor | None = None
        if 4 * self._train.rows.numel() <= _TABLE_BYTES:
            self._table = self.head.standardise(self._train.rows.float())
        self._model = world.wrap(self.head)
        self.optimizer = torch.optim.AdamW(
            decayed(self.head, recipe.weight_decay, recipe.learning_rate), lr=recipe.learning_rate, fused=True
        )
        weights = balanced_weights(train.labels, classes, recipe.class_weighting)
        self._loss = Loss(recipe.label_smoothing, None if weights is None else weights.to(world.device))
        self._valid = valid
        if valid is not None:
            share = world.share(len(valid))
            self._valid_rows = valid.evaluation()[share].to(world.device)
            self._valid_labels = valid.labels[share].to(world.device)
        self.steps = max(1, round(len(train) / recipe.batch_size))
        self._epoch = -1
        self._batches: list[np.ndarray] = []

    def schedule(self, stop_after: int | None = None) -> Schedule:
        """The schedule of the recipe; see `Schedule.stop_after`."""
        recipe = self._recipe
        return Schedule(recipe.epochs, self.steps, recipe.warmup, recipe.patience, stop_after)

    def train_step(self, epoch: int, step: int) -> Tally:
        """One step on this rank's share of the global batch."""
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
        logits = self._model(rows, tuple(mask[mine].to(device) for mask in masks), standardised=True)
        losses = self._loss(logits, labels, partner_labels, share)
        # DDP averages gradients over ranks: scale so that the result is the mean over the global batch.
        loss = losses.sum() * (self._world.size / len(batch))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return Tally(float(losses.detach().sum()), 0.0, len(photos))

    def _batch(self, epoch: int, step: int) -> np.ndarray:
        if epoch != self._epoch:
            order = np.random.default_rng([self._recipe.seed, epoch]).permutation(len(self._train))
            # Even cuts: a batch is never a photo or two whose gradient is noise.
            self._batches = np.array_split(order, self.steps)
            self._epoch = epoch
        return self._batches[step]

    def _mixed(self, photos: Tensor, draws: Tensor, share: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Standardised rows, mixed with their partners', then labels, partners' labels and shares."""
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
        return self.head.standardise(self._train.rows.index_select(0, rows).float())

    @torch.no_grad()
    def validate(self) -> Tally | None:
        """This rank's share of the validation photos."""
        if self._valid is None:
            return None
        tally = Tally()
        tally.add_logits(self.head(self._valid_rows), self._valid_labels)
        return tally

    def weights(self) -> dict[str, Tensor]:
        """A copy of the head's weights, on the CPU."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.head.state_dict().items()}

    def state(self) -> dict[str, Any]:
        """Weights and optimiser; all else follows from the step's number."""
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
) -> tuple[Head, Fit]:
    """Fit a head and return it, on the CPU, with the weights of the best epoch. See `fitting.run`."""
    task = HeadTask(recipe, train, valid, classes, world)
    fit = run(task, task.schedule(stop_after), checkpoints, world, report)
    head = task.head.cpu()
    head.load_state_dict(fit.weights)
    return head.eval(), fit
