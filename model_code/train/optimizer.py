"""Parameter groups for the optimizer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn


def decayed(parameters: Iterable[nn.Parameter], weight_decay: float, rate: float) -> list[dict[str, Any]]:
    """Parameter groups for AdamW: matrices are decayed, biases and norms are not.

    Args:
        parameters: Those without a gradient are left out.
        weight_decay: Of the matrices.
        rate: Peak learning rate.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return [
        {
            "params": [p for p in trained if p.ndim > 1],
            "weight_decay": weight_decay,
            "lr": rate,
            "peak": rate,
        },
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0, "lr": rate, "peak": rate},
    ]
