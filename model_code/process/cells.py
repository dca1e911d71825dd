"""Cells of CSV files that people open in a spreadsheet."""

from __future__ import annotations

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def cell(value: object) -> object:
    """Return a value with an apostrophe before text that a spreadsheet would execute."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
