"""Checks a request against botocore's own service model: required, type, length, range, pattern, enum."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import botocore.session
from botocore.model import Shape
from botocore.validate import ParamValidator


@cache
def _model(service: str) -> Any:
    return botocore.session.get_session().get_service_model(service)


def problems(service: str, operation: str, request: dict[str, Any]) -> list[str]:
    """Everything that AWS would find wrong with `request`; botocore itself checks only required, type and min."""
    shape = _model(service).operation_model(operation).input_shape
    report = ParamValidator().validate(request, shape)
    found = [report.generate_report()] if report.has_errors() else []
    return found + list(_walk(shape, request, operation))


def _walk(shape: Any, value: Any, path: str) -> Any:
    if shape.type_name == "structure":
        for name, member in value.items():
            yield from _walk(shape.members[name], member, f"{path}.{name}")
    elif shape.type_name == "list":
        yield from _bounds(shape, len(value), path)
        for number, member in enumerate(value):
            yield from _walk(shape.member, member, f"{path}[{number}]")
    elif shape.type_name == "map":
        yield from _bounds(shape, len(value), path)
        for key, member in value.items():
            yield from _walk(shape.key, key, f"{path}.{key}")
            yield from _walk(shape.value, member, f"{path}[{key}]")
    else:
        yield from _scalar(shape, value, path)


def _scalar(shape: Any, value: Any, path: str) -> Any:
    if isinstance(value, str):
        yield from _bounds(shape, len(value), path)
        if shape.enum and value not in shape.enum:
            yield f"{path}: {value!r} is not one of {shape.enum}"
        pattern = shape.metadata.get("pattern")
        # Java's \p{L} classes are unknown to Python.
        if pattern and "\\p{" not in pattern and not re.fullmatch(pattern, value, re.DOTALL):
            yield f"{path}: {value!r} does not match {pattern}"
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from _bounds(shape, value, path)


def _bounds(shape: Shape, size: float, path: str) -> Any:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and size < low:
        yield f"{path}: {size} is below {low}"
    if high is not None and size > high:
        yield f"{path}: {size} is above {high}"
