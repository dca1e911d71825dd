"""Parameter groups for the optimizer."""

from __future__ import annotations

from typing import Any

from torch import nn


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
