"""Exact averages over batches of any size and over all ranks, and the metric lines that SageMaker parses."""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from model_code.train.distributed import World

_ALONE: Final = World()


@dataclass
class Tally:
    """Loss and hits summed over photos, so that a short last batch has its true weight.

    The sums may be tensors on an accelerator: reading a number at every step would stall it.
    """

    loss: float | Tensor = 0.0
    correct: float | Tensor = 0.0
    photos: float = 0.0

    def add(self, loss_sum: float | Tensor, correct: float | Tensor, photos: float) -> None:
        """Add a batch: the sum (not the mean) of its losses, its hits and its size."""
        self.loss += loss_sum
        self.correct += correct
        self.photos += photos

    def numbers(self) -> dict[str, float]:
        """Return the sums as plain numbers; `Tally(**numbers)` is the inverse."""
        return {"loss": float(self.loss), "correct": float(self.correct), "photos": self.photos}

    def add_logits(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch by its logits [n, classes] and labels [n]; the loss is plain cross-entropy."""
        if len(labels):
            loss = functional.cross_entropy(logits.double(), labels, reduction="sum")
            self.add(loss, (logits.argmax(1) == labels).sum(), len(labels))

    def over(self, world: World = _ALONE) -> "Tally":
        """Return the sum of every rank's tally: the exact figure over all photos. Collective."""
        device = world.device if world.size > 1 else "cpu"
        sums = list(self.numbers().values())
        total = world.sum(torch.tensor(sums, dtype=torch.float64, device=device))
        loss, correct, photos = total.tolist()
        return Tally(loss, correct, photos)

    @property
    def mean_loss(self) -> float:
        """Mean loss per photo; not a number where there were none."""
        return float(self.loss) / self.photos if self.photos else float("nan")

    @property
    def accuracy(self) -> float:
        """Fraction of photos classified correctly; not a number where there were none."""
        return float(self.correct) / self.photos if self.photos else float("nan")


def log_metrics(**values: float) -> None:
    """Print `name=value ...` on one line; the names are those of `hyperparameters.metric_definitions`."""
    print(" ".join(f"{name}={value:.6g}" for name, value in values.items()), flush=True)
