"""Labels that came back: the true class of served photos, by InferenceId or SHA-256."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ml_pipeline.aws import s3 as objects
from ml_pipeline.aws.clients import Client


class LabelError(ValueError):
    """A label that cannot be taken; the text names the line and the fix."""


@dataclass(frozen=True)
class Label:
    """The true class of a served photo.

    Attributes:
        id: InferenceId of its request, or the SHA-256 of its bytes.
        label: Name of its class.
    """

    id: str
    label: str


def parse(lines: Iterable[str]) -> Iterator[Label]:
    """Labels of JSON lines, `{"id": ..., "label": ...}`, or of CSV lines, `id,label`.

    Raises:
        LabelError: A line is neither.
    """
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or (number == 1 and text.replace(" ", "") == "id,label"):
            continue
        try:
            if text.startswith("{"):
                record = json.loads(text)
                found = Label(str(record["id"]).strip(), str(record["label"]).strip())
            else:
                identity, label = text.rsplit(",", 1)
                found = Label(identity.strip(), label.strip())
        except (ValueError, KeyError, TypeError):
            found = Label("", "")
        if not found.id or not found.label:
            raise LabelError(
                f'line {number}: give {{"id": <InferenceId or SHA-256>, "label": <class>}}, or id,label'
            )
        yield found


def store(s3: Client, bucket: str, name: str, labels: Iterable[Label]) -> tuple[str, int]:
    """Keep labels of a data set's endpoints; the same labels again are the same object.

    Returns:
        The object's URI, and the number of labels.

    Raises:
        LabelError: There are none.
    """
    records: list[Mapping[str, str]] = [vars(label) for label in labels]
    if not records:
        raise LabelError("no label to store")
    body = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    key = f"datasets/{name}/truth/{hashlib.sha256(body).hexdigest()[:20]}.jsonl"
    s3.put_object(Bucket=bucket, Key=key, Body=body)
    return f"s3://{bucket}/{key}", len(records)


def load(s3: Client, bucket: str, name: str) -> dict[str, str]:
    """All labels that came back, class by id."""
    uri = f"s3://{bucket}/datasets/{name}/truth/"
    found: dict[str, str] = {}
    for key in sorted(objects.keys(s3, uri)):
        for label in parse(objects.read(s3, uri + key).decode().splitlines()):
            found[label.id] = label.label
    return found
