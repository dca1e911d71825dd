"""Statuses of an endpoint."""

from __future__ import annotations

UNSETTLED = frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"})
# What an endpoint that does not exist is said to be.
ABSENT = "Absent"
