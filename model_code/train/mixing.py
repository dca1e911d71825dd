"""Mixup between neighbors of a batch, and the loss of mixed labels.

Photo i is mixed with photo i ^ 1. Batches are shuffled, so neighbors are as random as any pairing, and
unlike a random permutation the pairs stay on one rank: one process or several mix the same photos.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Loss:
    """Cross-entropy over mixed labels and, where there is a teacher, its probabilities (Hinton et al. 2015).

    Args:
        smoothing: Probability spread over all classes.
        class_weights: [classes], with mean 1 over the training photos, or None to weigh all photos equally.
        distillation: The teacher's share of the loss.
        temperature: Divides logits before they are compared with the teacher's, which were divided too.
    """

    smoothing: float = 0.0
    class_weights: Tensor | None = None
    distillation: float = 0.0
    temperature: float = 1.0

    def __call__(
        self, logits: Tensor, labels: Tensor, partners: Tensor, share: Tensor, taught: Tensor | None = None
    ) -> Tensor:
        """Return the loss of each photo, [n].

        Args:
            logits: [n, classes].
            labels: Classes of the photos, [n].
            partners: Classes of the photos that they were mixed with, [n].
            share: Each photo's share of its mixture, [n], 0.5 to 1.
            taught: The teacher's probabilities of the mixtures, [n, classes], or None.
        """
        log_probability = functional.log_softmax(logits.float(), dim=1)
        own = self._negative(log_probability, labels)
        other = self._negative(log_probability, partners)
        hard = share * own + (1 - share) * other
        if taught is None:
            return hard
        cooled = functional.log_softmax(logits.float() / self.temperature, dim=1)
        # The square keeps the size of the gradients when the temperature changes.
        return torch.lerp(hard, -(taught * cooled).sum(1) * self.temperature**2, self.distillation)

    def soft(self, logits: Tensor) -> Tensor:
        """Return a teacher's probabilities [n, classes], as this loss compares them."""
        return torch.softmax(logits.float() / self.temperature, dim=1)

    def _negative(self, log_probability: Tensor, labels: Tensor) -> Tensor:
        hit = -log_probability.gather(1, labels[:, None]).squeeze(1)
        loss = (1 - self.smoothing) * hit - self.smoothing * log_probability.mean(1)
        return loss if self.class_weights is None else loss * self.class_weights[labels]


def mixed(rows: Tensor, share: Tensor) -> Tensor:
    """Mix rows [n, width] with their partners'."""
    return torch.lerp(rows[partners(len(rows), rows.device)], rows, share[:, None])


def partners(count: int, device: torch.device | None = None) -> Tensor:
    """Index of the partner of each of `count` photos; the last of an odd number is its own."""
    index = torch.arange(count, device=device) ^ 1
    return index.clamp_(max=max(count - 1, 0))


def draw_shares(generator: np.random.Generator, count: int, alpha: float) -> Tensor:
    """Draw each photo's share of its mixture: Beta(alpha, alpha) folded to 0.5 .. 1, the same within a pair."""
    if alpha <= 0:
        return torch.ones(count)
    share = generator.beta(alpha, alpha, size=(count + 1) // 2).astype(np.float32)
    return torch.from_numpy(np.maximum(share, 1 - share).repeat(2)[:count])


def cut(generator: np.random.Generator, side: int, alpha: float) -> tuple[tuple[int, int, int, int], float]:
    """Draw the patch that cutmix swaps (top, bottom, left, right), and the share of a photo that stays."""
    edge = round(side * float(np.sqrt(1 - generator.beta(alpha, alpha))))
    top, left = generator.integers(0, side - edge + 1, size=2).tolist()
    return (top, top + edge, left, left + edge), 1 - edge**2 / side**2


def mix(
    photos: Tensor, partner: Tensor, share: Tensor, box: tuple[int, int, int, int] | None = None
) -> Tensor:
    """Mix photos [n, 3, h, w] with their partners: within the box if there is one, else everywhere."""
    if box is None:
        return torch.lerp(photos[partner], photos, share[:, None, None, None])
    top, bottom, left, right = box
    mixed = photos.clone()
    mixed[:, :, top:bottom, left:right] = photos[partner, :, top:bottom, left:right]
    return mixed


def balanced_weights(labels: Tensor, classes: int, strength: float) -> Tensor | None:
    """Weights [classes] against imbalance: 1 / frequency to the power `strength`, with mean 1 over `labels`.

    A strength of 0 gives None: all photos weigh the same. A strength of 1 gives every class the same weight.
    """
    if strength <= 0:
        return None
    counts = torch.bincount(labels, minlength=classes).clamp(min=1).double()
    weights = counts.pow(-strength)
    return (weights / weights[labels].mean()).float()
