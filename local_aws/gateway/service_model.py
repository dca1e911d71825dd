"""Requests checked, and responses shaped, from botocore's own service model (`service-2.json`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from typing import Any

import botocore.session
import regex  # type: ignore[import-untyped]
from botocore.model import OperationModel, Shape

from local_aws.errors import AwsError

# A surrogate pair spelled as two escapes, which only Java's regular expressions read as one character.
_JAVA_ASTRAL = ("\\uD800\\uDC00-\\uDBFF\\uDFFF", "\\U00010000-\\U0010FFFF")

_Problem = tuple[str, str, str]  # path, value as AWS prints it, constraint


@cache
def load(service: str) -> ServiceModel:
    """Return the model of a botocore service, by botocore's name for it ("sagemaker", "logs")."""
    return ServiceModel(service)


class ServiceModel:
    """One AWS service: its operations, how their requests are checked and their responses shaped."""

    def __init__(self, service: str) -> None:
        self._model = botocore.session.get_session().get_service_model(service)
        self.service = service
        self.protocol: str = self._model.metadata["protocol"]
        self.target_prefix: str = self._model.metadata.get("targetPrefix", "")
        self.json_version: str = self._model.metadata.get("jsonVersion", "1.1")
        self._projectors: dict[str, _Projector | None] = {}
        self.operations = frozenset(self._model.operation_names)

    @cache  # noqa: B019 - models live as long as the process
    def operation(self, name: str) -> OperationModel:
        """Return botocore's model of one operation."""
        return self._model.operation_model(name)

    def shape(self, name: str) -> Shape:
        """Return one shape by its name in the model."""
        return self._model.shape_for(name)

    def validate(self, operation: str, params: Any) -> None:
        """Check a request as AWS's front door does.

        Raises SerializationException for a value of the wrong JSON type and ValidationException, with AWS's
        wording, for everything else: required, length, range, pattern, enum. A member that the model does not
        know is refused too: AWS drops it in silence, but then the caller would believe in an option that has
        no effect.
        """
        shape = self.operation(operation).input_shape
        if shape is None:
            return
        problems = list(_check(shape, params, ""))
        if problems:
            raise AwsError("ValidationException", describe_problems(problems))

    def project(self, operation: str, document: dict[str, Any]) -> dict[str, Any]:
        """Return the part of `document` that is in the operation's response."""
        shape = self.operation(operation).output_shape
        if shape is None:
            return {}
        return self._project(shape, document)

    def project_shape(self, shape: str, document: dict[str, Any]) -> dict[str, Any]:
        """Return the part of `document` that is in a named structure, such as a summary."""
        return self._project(self.shape(shape), document)

    def _project(self, shape: Shape, document: dict[str, Any]) -> dict[str, Any]:
        projector = _projector(shape, self._projectors)
        return document if projector is None else dict(projector(document))


def describe_problems(problems: list[_Problem]) -> str:
    """AWS's one-line account of what is wrong with a request."""
    count = len(problems)
    parts = [
        f"Value {value} at '{path}' failed to satisfy constraint: {constraint}"
        for path, value, constraint in problems
    ]
    return f"{count} validation error{'s' if count > 1 else ''} detected: " + "; ".join(parts)


def _member_path(path: str, name: str) -> str:
    name = name[:1].lower() + name[1:]
    return f"{path}.{name}" if path else name


def _printed(value: Any) -> str:
    if value is None:
        return "null"
    return f"'{_java(value)}'"


def _java(value: Any) -> str:
    """Return a value as Java's toString prints it, which is what AWS's messages show."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}={_java(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_java(v) for v in value) + "]"
    return str(value)


def _check(shape: Any, value: Any, path: str) -> Iterator[_Problem]:
    kind = shape.type_name
    _check_type(kind, value, path)
    if kind == "structure":
        yield from _check_structure(shape, value, path)
    elif kind == "list":
        yield from _check_length(shape, value, path)
        for index, member in enumerate(value, start=1):
            yield from _check_member(shape.member, member, f"{path}.{index}.member")
    elif kind == "map":
        yield from _check_map(shape, value, path)
    elif kind in ("string", "blob"):
        yield from _check_string(shape, value, path)
    elif kind in ("integer", "long", "float", "double"):
        yield from _check_range(shape, value, path)


def _check_member(shape: Any, value: Any, path: str) -> Iterator[_Problem]:
    if value is None:
        yield path, "null", "Member must not be null"
    else:
        yield from _check(shape, value, path)


def _check_structure(shape: Any, value: dict[str, Any], path: str) -> Iterator[_Problem]:
    if getattr(shape, "is_document_type", False):
        return
    given = {name: member for name, member in value.items() if member is not None}
    for name in shape.required_members:
        if name not in given:
            yield _member_path(path, name), "null", "Member must not be null"
    for name, member in given.items():
        if name not in shape.members:
            known = ", ".join(shape.members)
            raise AwsError(
                "ValidationException",
                f'Unknown parameter in {path or "input"}: "{name}", must be one of: {known}',
            )
        yield from _check(shape.members[name], member, _member_path(path, name))
    if getattr(shape, "is_tagged_union", False) and len(given) != 1:
        yield path, _printed(value), f"Exactly one of the members must be set: {', '.join(shape.members)}"


def _check_map(shape: Any, value: dict[str, Any], path: str) -> Iterator[_Problem]:
    yield from _check_length(shape, value, path)
    for key, member in value.items():
        key_problems = [c for _, _, c in _check(shape.key, key, path)]
        if key_problems:
            yield path, _printed(value), f"Map keys must satisfy constraint: [{', '.join(key_problems)}]"
        if shape.value.type_name in ("structure", "list", "map"):
            yield from _check_member(shape.value, member, f"{path}.{key}.member")
            continue
        value_problems = [c for _, _, c in _check_member(shape.value, member, path)]
        if value_problems:
            yield path, _printed(value), f"Map value must satisfy constraint: [{', '.join(value_problems)}]"


def _check_length(shape: Any, value: Any, path: str) -> Iterator[_Problem]:
    longest, shortest = shape.metadata.get("max"), shape.metadata.get("min")
    if longest is not None and len(value) > longest:
        yield path, _printed(value), f"Member must have length less than or equal to {longest}"
    if shortest is not None and len(value) < shortest:
        yield path, _printed(value), f"Member must have length greater than or equal to {shortest}"


def _check_string(shape: Any, value: str, path: str) -> Iterator[_Problem]:
    yield from _check_length(shape, value, path)
    enum = shape.metadata.get("enum")
    if enum and value not in enum:
        yield path, _printed(value), f"Member must satisfy enum value set: [{', '.join(enum)}]"
    pattern = shape.metadata.get("pattern")
    if pattern and not _compiled(pattern)(value):
        yield path, _printed(value), f"Member must satisfy regular expression pattern: {pattern}"


def _check_range(shape: Any, value: float, path: str) -> Iterator[_Problem]:
    most, least = shape.metadata.get("max"), shape.metadata.get("min")
    if most is not None and value > most:
        yield path, _printed(value), f"Member must have value less than or equal to {most}"
    if least is not None and value < least:
        yield path, _printed(value), f"Member must have value greater than or equal to {least}"


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Callable[[str], Any]:
    r"""Compile an AWS pattern: Java syntax (`\p{L}`, hence `regex`), matched against the whole value."""
    return regex.compile(pattern.replace(*_JAVA_ASTRAL)).fullmatch


_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "structure": (dict,),
    "map": (dict,),
    "list": (list,),
    "string": (str,),
    "character": (str,),
    "blob": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "timestamp": (int, float),
}
_JAVA_TYPES = {
    "structure": "Structure",
    "map": "Map",
    "list": "Collection",
    "blob": "ByteBuffer",
    "boolean": "Boolean",
    "integer": "Integer",
    "long": "Long",
    "float": "Float",
    "double": "Double",
    "timestamp": "Date",
}


def _check_type(kind: str, value: Any, path: str) -> None:
    expected = _JSON_TYPES[kind]
    # bool is an int to Python, never to AWS.
    if isinstance(value, expected) and (kind == "boolean" or not isinstance(value, bool)):
        return
    where = f" at '{path}'" if path else ""
    raise AwsError(
        "SerializationException",
        f"{_token(value)} cannot be converted to {_JAVA_TYPES.get(kind, 'String')}{where}",
    )


def _token(value: Any) -> str:
    if isinstance(value, bool):
        return f"{str(value).upper()}_VALUE"
    if isinstance(value, int):
        return "NUMBER_VALUE"
    if isinstance(value, float):
        return "DECIMAL_VALUE"
    if isinstance(value, str):
        return "STRING_VALUE"
    if isinstance(value, list):
        return "START_ARRAY"
    return "START_OBJECT" if isinstance(value, dict) else "NULL_VALUE"


_Projector = Callable[[Any], Any]


def _projector(shape: Any, known: dict[str, _Projector | None]) -> _Projector | None:
    """Return a function that keeps of a value what its shape knows; None where everything is kept.

    Made once per shape: walking botocore's model again for every answer would take most of a describe's time.
    """
    if shape.name in known:
        return known[shape.name]
    kind = shape.type_name
    if kind in ("list", "map"):
        inner = _projector(shape.member if kind == "list" else shape.value, known)
        return None if inner is None else _each(kind, inner)
    if kind != "structure":
        return None
    members: dict[str, _Projector | None] = {}

    def project(value: dict[str, Any]) -> dict[str, Any]:
        kept = {}
        for name, member in value.items():
            if member is not None and name in members:
                inner = members[name]
                kept[name] = member if inner is None else inner(member)
        return kept

    # Known before its members are made: shapes may contain themselves.
    known[shape.name] = project
    members.update((name, _projector(member, known)) for name, member in shape.members.items())
    return project


def _each(kind: str, inner: _Projector) -> _Projector:
    if kind == "list":
        return lambda value: [inner(member) for member in value]
    return lambda value: {key: inner(member) for key, member in value.items()}
