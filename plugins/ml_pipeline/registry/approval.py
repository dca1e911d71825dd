"""The approval of a model package."""

from __future__ import annotations

from enum import StrEnum


class Approval(StrEnum):
    """The approver of a model that passed the gate."""

    AUTO = "auto"
    HUMAN = "human"
