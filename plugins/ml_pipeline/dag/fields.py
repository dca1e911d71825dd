"""Fields of a form: each makes a Param from its default, bounds, title and description. An empty one is None."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from airflow.sdk import Param

from ml_pipeline.costs.machines import AUTO
from ml_pipeline.requests import preferences


def field(default: Any, kind: str, title: str, use: str = "", **schema: Any) -> Param:
    """Make a param of a JSON type; its default is None where it may stay empty."""
    described = {"description_md": use} if use else {}
    return Param(
        default, type=[kind, "null"] if default is None else kind, title=title, **described, **schema
    )


def text(default: str, title: str, use: str = "", **schema: Any) -> Param:
    """Make a text field."""
    return field(default, "string", title, use, **schema)


def switch(default: bool, title: str, use: str) -> Param:
    """Make a field that is on or off."""
    return field(default, "boolean", title, use)


def integer(default: int | None, bounds: tuple[int, int | None], title: str, use: str = "") -> Param:
    """Make a whole number between the bounds, of which the second may be open."""
    return field(default, "integer", title, use, **_bounds(*bounds))


def number(default: float | None, bounds: tuple[float, float | None], title: str, use: str = "") -> Param:
    """Make a number between the bounds, of which the second may be open."""
    return field(default, "number", title, use, **_bounds(*bounds))


def choice(default: StrEnum, title: str, use: str) -> Param:
    """Make a field that takes the values of `default`'s enum."""
    return text(default.value, title, use, enum=[each.value for each in type(default)])


_MACHINE = r"ml\.[a-z0-9-]+\.[a-z0-9]+"


def machine(default: str, title: str, use: str = "", *, several: bool = False, other: str = "") -> Param:
    """Make a field for a type of SageMaker instance.

    Args:
        default: Its value; with AUTO, AUTO may be chosen.
        title: Its name in the form.
        use: See `field`.
        several: Take several types in order of preference, too.
        other: A word that may be chosen instead.
    """
    more = rf"(, ?{_MACHINE}){{0,{preferences.LIMIT - 1}}}" if several else ""
    auto = f"{AUTO}|" if default == AUTO else ""
    word = f"{other}|" if other else ""
    return text(default, title, use, pattern=rf"^({auto}{word}{_MACHINE}{more})$")


def _bounds(low: float, high: float | None) -> dict[str, float]:
    return {"minimum": low} if high is None else {"minimum": low, "maximum": high}
