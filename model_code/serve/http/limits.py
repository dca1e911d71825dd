"""Limits of the HTTP layer: sizes, counts and times."""

from __future__ import annotations

from dataclasses import dataclass

from model_code.data.limits import MAX_PIXELS

MIB = 1 << 20


class SettingsError(ValueError):
    """A setting is out of range; the message names it and its bounds."""


@dataclass(frozen=True)
class Limits:
    """Limits on what one client may use. Sizes in bytes, times in seconds."""

    head: int = 16 * 1024
    headers: int = 64
    body: int = 32 * MIB
    buffered: int = 128 * MIB
    """Requests held by one process at a time, over all connections: past it the answer is 503."""
    photos: int = 1024
    pixels: int = MAX_PIXELS
    """Largest photo; by default as in training and evaluation."""
    connections: int = 1024
    head_timeout: float = 10.0
    body_timeout: float = 30.0
    idle_timeout: float = 75.0
    write_timeout: float = 30.0
    drain_timeout: float = 30.0
    hang_timeout: float = 60.0
    """Longest work on one batch: past it /ping says 503. SageMaker's clients wait 60 s for an answer.
    https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
    """

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if not getattr(self, name) > 0:
                raise SettingsError(f"{name} must be above 0, not {getattr(self, name)}")
