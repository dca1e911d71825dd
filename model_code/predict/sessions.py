"""Runtime sessions: one loaded network, called with a batch of normalized photos.

A session is thread-safe and runs on the calling thread when it was opened with one thread, so several server
threads share one copy of the weights.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


class Runtime(StrEnum):
    """Library that executes the network. The value is the name in model.json and on the command line."""

    ONNX_INT8 = "onnx-int8"
    ONNX = "onnx"
    TORCH = "torch"


class SessionError(Exception):
    """The network cannot be opened or run in this runtime; the message is one line."""


class Session(Protocol):
    """One loaded network."""

    @property
    def has_features(self) -> bool:
        """True if `features` is available: the exported network has a second output."""

    def logits(self, batch: Floats) -> Floats:
        """Logits [n, classes] before temperature, for a normalized batch [n, 3, h, w]."""

    def features(self, batch: Floats) -> tuple[Floats, Floats]:
        """Logits [n, classes] and the last feature map [n, channels, h', w']."""
