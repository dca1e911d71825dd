"""Reads docker-compose.yaml as Compose does: YAML with merge keys, then variables put into every string."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docker-compose.yaml"

_VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<name>\w+)(?:(?P<operator>:?[-?+])(?P<rest>[^}]*))?\})")


class MissingVariableError(Exception):
    """A `${NAME:?message}` whose variable is unset or empty."""


def script(path: str) -> ModuleType:
    """A script of docker/ as a module (the folder is no package: PyPI has one of that name)."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / "docker" / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def raw() -> dict[str, Any]:
    """The file with its variables in place."""
    return yaml.safe_load(FILE.read_text())


def load(environ: Mapping[str, str]) -> dict[str, Any]:
    """The file as Compose sees it with `environ` as .env. Raises MissingVariableError."""
    return _put_in(raw(), environ)


def variables() -> set[str]:
    """Every variable that the file names."""
    return {match["name"] for match in _VARIABLE.finditer(FILE.read_text()) if match["name"]}


def read_env(text: str) -> dict[str, str]:
    """NAME=value lines of an .env file; these hold no quotes."""
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


def interpolate(text: str, environ: Mapping[str, str]) -> str:
    """`text` with `$$`, `${N}`, `${N:-d}`, `${N-d}`, `${N:?m}`, `${N?m}`, `${N:+i}` and `${N+i}` put in."""

    def value(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        found, operator = environ.get(match["name"]), match["operator"] or ""
        absent = found is None or (not found and operator.startswith(":"))
        if operator.endswith("+"):
            return "" if absent else match["rest"]
        if found is None or absent:
            if operator.endswith("?"):
                raise MissingVariableError(f"{match['name']} {match['rest']}")
            return match["rest"] or ""
        return found

    return _VARIABLE.sub(value, text)


def _put_in(node: Any, environ: Mapping[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _put_in(item, environ) for key, item in node.items()}
    if isinstance(node, list):
        return [_put_in(item, environ) for item in node]
    return interpolate(node, environ) if isinstance(node, str) else node


def _closed(properties: dict[str, Any], required: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


_TEXT = {"type": "string", "minLength": 1}
_TEXTS = {"type": "array", "items": _TEXT}
_DURATION = {"type": "string", "pattern": r"^\d+(ms|s|m|h)$"}
_SIZE = {"type": "string", "pattern": r"^\d+[bkmg]$"}
_DEPENDS = _closed(
    {
        "condition": {"enum": ["service_started", "service_healthy", "service_completed_successfully"]},
        "required": {"type": "boolean"},
        "restart": {"type": "boolean"},
    },
    ("condition",),
)
_BIND = _closed(
    {
        "type": {"const": "bind"},
        "source": _TEXT,
        "target": {"type": "string", "pattern": "^/"},
        "read_only": {"type": "boolean"},
        "bind": _closed({"create_host_path": {"type": "boolean"}}),
    },
    ("type", "source", "target"),
)
_LIMITS = _closed(
    {
        "cpus": {"type": "string", "pattern": r"^\d+(\.\d+)?$"},
        "memory": _SIZE,
        "pids": {"type": "integer", "minimum": 1},
    },
    ("cpus", "memory", "pids"),
)
_SERVICE = _closed(
    {
        "image": _TEXT,
        "build": _closed(
            {"context": _TEXT, "dockerfile": _TEXT, "target": _TEXT}, ("context", "dockerfile")
        ),
        "command": {**_TEXTS, "minItems": 1},
        "entrypoint": _TEXTS,
        "environment": {"type": "object", "additionalProperties": {"type": "string"}},
        "profiles": _TEXTS,
        "user": _TEXT,
        "init": {"const": True},
        "read_only": {"const": True},
        "cap_drop": {"const": ["ALL"]},
        "security_opt": {"const": ["no-new-privileges:true"]},
        "restart": {"enum": ["no", "always", "on-failure", "unless-stopped"]},
        "logging": _closed({"driver": _TEXT, "options": {"type": "object"}}, ("driver",)),
        "networks": _TEXTS,
        "depends_on": {"type": "object", "additionalProperties": _DEPENDS},
        "volumes": {
            "type": "array",
            "items": {"anyOf": [{"type": "string", "pattern": "^[a-z-]+:/[^:]+$"}, _BIND]},
        },
        "tmpfs": {"type": "array", "items": {"type": "string", "pattern": r"^/[\w/]+:size=\d+m,mode=1777$"}},
        "shm_size": _SIZE,
        "ports": {"type": "array", "items": {"type": "string", "pattern": r"^127\.0\.0\.1:\d+:\d+$"}},
        "healthcheck": _closed(
            {
                "test": {"type": "array", "items": _TEXT, "minItems": 2},
                "interval": _DURATION,
                "timeout": _DURATION,
                "start_period": _DURATION,
                "retries": {"type": "integer", "minimum": 1},
            },
            ("test", "interval", "timeout", "retries", "start_period"),
        ),
        "deploy": _closed({"resources": _closed({"limits": _LIMITS}, ("limits",))}, ("resources",)),
        "stop_grace_period": _DURATION,
    },
    (
        "image", "init", "read_only", "cap_drop", "security_opt", "restart", "logging", "networks", "deploy",
    ),
)  # fmt: skip
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
        "services": {
            "type": "object",
            # A host name, so letters, digits and hyphens alone: botocore refuses an underscore.
            "patternProperties": {"^[a-z][a-z0-9-]*$": _SERVICE},
            "additionalProperties": False,
        },
        "networks": {"type": "object", "additionalProperties": _closed({"internal": {"type": "boolean"}})},
        "volumes": {"type": "object", "additionalProperties": _closed({})},
    },
    "patternProperties": {"^x-": {}},
    "required": ["name", "services", "networks", "volumes"],
    "additionalProperties": False,
}
"""The subset of the Compose specification in use, closed and stricter: every service needs hardening and limits."""
