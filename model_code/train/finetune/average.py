"""An exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class Average:
    """An exponential moving average of parameters, warmed up so that it forgets the start of a short fit.

    Args:
        parameters: The parameters to average.
        decay: Per step, once warm; 0 keeps no average.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self._parameters = list(parameters)
        self._decay = decay
        self._steps = 0
        self._shadow = [p.detach().clone() for p in self._parameters] if decay else []

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters after a step."""
        if self._decay:
            self._steps += 1
            decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
            torch._foreach_lerp_(self._shadow, [p.detach() for p in self._parameters], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within it, the parameters hold their averages."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, shadow in zip(self._parameters, self._shadow, strict=False):
            kept = parameter.detach().clone()
            parameter.copy_(shadow)
            shadow.copy_(kept)

    def state(self) -> dict[str, Any]:
        """Return the state that `restore` takes, on the CPU."""
        return {"steps": self._steps, "shadow": [shadow.cpu() for shadow in self._shadow]}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a `state`."""
        self._steps = state["steps"]
        for shadow, saved in zip(self._shadow, state["shadow"], strict=True):
            shadow.copy_(saved)
