"""The one source of names: the same run with the same request gets the same name.

A paid job's name is `<slug>-<12 hex>-<n>`. The hex digits hash the origin (DAG, run, task, map index) and the request,
so a retry finds the job of the try before it instead of paying for a second one.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from ml_pipeline.requests.types import Document, Tags

# CreateHyperParameterTuningJob allows 32 characters because its trials append theirs; everything else allows 63.
TUNING_LIMIT = 32
LIMIT = 63
# Stands for the name inside a request while the request is being hashed for that name.
PLACEHOLDER = "job-name"
# Tag of all paid things of this project.
PROJECT_TAG = ("project", "ml-pipeline")

_DIGITS = 12
_UNSAFE = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True)
class Origin:
    """The identity of a task instance, without its try number."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1


def slug(text: str, limit: int = 24) -> str:
    """Reduce `text` to the characters that every AWS name allows: lower case, digits, single hyphens.

    Raises:
        ValueError: `text` holds no usable character.
    """
    cleaned = _UNSAFE.sub("-", text.lower()).strip("-")[:limit].rstrip("-")
    if not cleaned:
        raise ValueError(f"{text!r} holds no letter or digit to make a name from")
    return cleaned


def fingerprint(*parts: Any) -> str:
    """Return 12 hex digits of the SHA-256 of `parts` as canonical JSON."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:_DIGITS]


def job_name(kind: str, origin: Origin, request: Document, attempt: int, limit: int = LIMIT) -> str:
    """Return the name of the `attempt`-th job (from 1) that `origin` starts for `request`.

    Tags are not hashed: they do not change what is computed.

    Args:
        kind: First part of the name: "train", "tune", ...
        origin: The run and task that start the job.
        request: The AWS request with PLACEHOLDER where the name stands.
        attempt: Number of the attempt, from 1.
        limit: Longest name the API takes.
    """
    if attempt < 1:
        raise ValueError(f"attempts count from 1, not {attempt}")
    content = {key: value for key, value in request.items() if key != "Tags"}
    identity = [origin.dag_id, origin.run_id, origin.task_id, origin.map_index]
    tail = f"-{fingerprint(identity, content)}-{attempt}"
    return slug(kind, limit - len(tail)) + tail


def content_name(kind: str, *content: Any, limit: int = LIMIT) -> str:
    """Return a name that depends on content alone: the same model from the same parts has the same name."""
    tail = f"-{fingerprint(*content)}"
    return slug(kind, limit - len(tail)) + tail


def alarm(endpoint_name: str, kind: str) -> str:
    """Return the name of an endpoint's alarm; Airflow's role may change alarms with this prefix only."""
    return f"{PROJECT_TAG[1]}-{endpoint_name}-{kind}"


def tags(origin: Origin, **more: str) -> list[dict[str, str]]:
    """Return the tags of paid things, by which janitor and teardown find them: project, DAG and run."""
    values = {PROJECT_TAG[0]: PROJECT_TAG[1], "dag_id": origin.dag_id, "run_id": origin.run_id, **more}
    return [{"Key": key, "Value": tag_value(value)} for key, value in values.items()]


def is_ours(tags: Tags) -> bool:
    """Return True if the tags of a resource, as AWS lists them, name the project."""
    return any((tag["Key"], tag["Value"]) == PROJECT_TAG for tag in tags)


def tag_value(text: str) -> str:
    """Return `text` as the value of a tag."""
    # Tag values allow letters, digits, spaces and _.:/=+-@, up to 256 characters.
    return re.sub(r"[^\w .:/=+\-@]", "_", text)[:256]
