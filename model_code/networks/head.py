"""The classifier head as a torch module."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


class Head(nn.Module):
    """Standardize, drop, optionally one hidden layer with ReLU, classify.

    Maps embeddings [n, dim] to logits [n, classes].

    Args:
        mean: Subtracted from each embedding, [dim].
        deviation: Then divides it, [dim].
        classes: Number of classes.
        hidden: Width of the hidden layer; 0: none.
        dropout: Fraction dropped before each linear layer.
        seed: Draws the weights of the hidden layer. The last layer starts at zero: all classes equally likely.
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

    def standardize(self, embeddings: Tensor) -> Tensor:
        """Mean 0 and deviation 1 in every dimension, as over the training rows."""
        return (embeddings - self.mean) * self.scale

    def forward(
        self, embeddings: Tensor, masks: tuple[Tensor, ...] = (), *, standardized: bool = False
    ) -> Tensor:
        """Logits [n, classes].

        Args:
            embeddings: [n, dim].
            masks: Drop inputs, one mask per linear layer; see `draw_masks`.
            standardized: Whether `embeddings` went through `standardize` already.
        """
        x = embeddings if standardized else self.standardize(embeddings)
        if masks:
            x = x * masks[0]
        if self.hidden is not None:
            x = functional.relu(self.hidden(x))
            if masks:
                x = x * masks[1]
        return self.output(x)

    def draw_masks(self, generator: np.random.Generator, count: int) -> tuple[Tensor, ...]:
        """Draw dropout masks for a global batch of `count`, each [count, width]: 0, or 1 / P(kept).

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
        """Return the same function without standardization: a Linear, or Linear, ReLU, Linear. For export."""
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
